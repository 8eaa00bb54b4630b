-- GET of a directory of 1,000 keys with all that is below it.
function init(args)
    wrk.path = "/v2/keys/thousand?recursive=true"
end

dofile(os.getenv("QUORATE_BENCH_LUA") .. "/done.lua")
