-- Requests of wrk.method to 10,000 keys in random order, with `query` where a script that includes this has set it; ends with one line
-- of JSON.
local keys = 10000
local requests = {}

function init(args)
    math.randomseed(tonumber(tostring({}):match("0x(%x+)"), 16) % 2147483647)
    for i = 0, keys - 1 do
        requests[i] = wrk.format(nil, string.format("/v2/keys/bench/k%07d", i) .. (query or ""))
    end
end

function request()
    return requests[math.random(0, keys - 1)]
end

dofile(os.getenv("QUORATE_BENCH_LUA") .. "/done.lua")
