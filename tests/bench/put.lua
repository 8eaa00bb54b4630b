-- PUT of 256-byte values.
wrk.method = "PUT"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
wrk.body = "value=" .. string.rep("v", 256)
dofile(os.getenv("QUORATE_BENCH_LUA") .. "/keys.lua")
