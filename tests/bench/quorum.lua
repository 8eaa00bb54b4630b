-- Linearizable GET.
query = "?quorum=true"
dofile(os.getenv("QUORATE_BENCH_LUA") .. "/keys.lua")
