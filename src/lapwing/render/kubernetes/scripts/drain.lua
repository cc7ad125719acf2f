-- Runs when the kubelet requests /drain before it stops the edge. Envoy closes each connection after
-- the response that is due. The request is answered when load balancers have had the time to remove
-- the pod and no request or stream is open; until then the kubelet sends no SIGTERM.
function envoy_on_request(handle)
  if handle:headers():get(":path") ~= "/drain" then return end
  local function call(cluster, method, path)
    local headers = {[":method"] = method, [":path"] = path, [":authority"] = "edge"}
    local _, body = handle:httpCall(cluster, headers, nil, 5000)
    return body or ""
  end
  local until_removed = os.time() + <wait>
  call("envoy_admin", "POST", "/healthcheck/fail")
  repeat
    call("envoy_drain", "GET", "/wait")
    local active = call("envoy_admin", "GET", "/stats?filter=^http.edge.downstream_rq_active$")
  until os.time() >= until_removed and active:find(": 0\n", 1, true)
  handle:respond({[":status"] = "200"}, "drained\n")
end
