-- GET.
dofile(os.getenv("QUORATE_BENCH_LUA") .. "/keys.lua")
