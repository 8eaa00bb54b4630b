-- What wrk measured, as one line that begins with JSON.
function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        'JSON{"requests":%d,"seconds":%.6f,"errors":%d,"p50_us":%.1f,"p90_us":%.1f,"p99_us":%.1f,"max_us":%.1f,"bytes":%d}\n',
        summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max, summary.bytes))
end
