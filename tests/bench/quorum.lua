-- Linearizable GET of 10,000 keys in random order; ends with one line of JSON.
query = "?quorum=true"
dofile(os.getenv("QUORATE_BENCH_LUA") .. "/get.lua")
