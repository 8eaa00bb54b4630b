-- PUT of 256-byte values to 10,000 keys in random order; ends with one line of JSON.
local keys, bytes = 10000, 256
local requests = {}

function init(args)
    math.randomseed(tonumber(tostring({}):match("0x(%x+)"), 16) % 2147483647)
    wrk.method = "PUT"
    wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
    wrk.body = "value=" .. string.rep("v", bytes)
    for i = 0, keys - 1 do
        requests[i] = wrk.format("PUT", string.format("/v2/keys/bench/k%07d", i))
    end
end

function request()
    return requests[math.random(0, keys - 1)]
end

dofile(os.getenv("QUORATE_BENCH_LUA") .. "/done.lua")
