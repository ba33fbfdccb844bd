"""Resources from files: endpoints, routes, clusters, listeners, and what changes of them do to clients."""

from ..case import (At, Case, Page, Put, ReadHead, Response, Send, Serve, Wait, address, answer, ask, cluster,
                    from_file, get, http, resource, to)

NAMED = {name: [[Serve(answer(body=name.encode()))]] for name in ("a", "b")}
ASK = [Send(get()), Response()]
STATS = ["cluster_manager.*", "listener_manager.l*", "listener_manager.total*"]
DUMP = Page("/config_dump?include_eds")


def endpoints(*backends, name="up", **fields):
    message = cluster(name, *backends)["load_assignment"]
    return resource("ClusterLoadAssignment", {**message, **fields})


def eds(name="up", **fields):
    return {"name": name, "type": "EDS", "connect_timeout": "1s",
            "eds_cluster_config": {"eds_config": from_file("eds.json", initial_fetch_timeout="1s")}, **fields}


def routes(*routes, name="routes", **fields):
    hosts = [{"name": "all", "domains": ["*"], "routes": list(routes)}]
    return resource("RouteConfiguration", {"name": name, "virtual_hosts": hosts, **fields})


def rds(**fields):
    source = from_file("rds.json", initial_fetch_timeout="1s", **fields)
    return http(clusters=[cluster("a", "a"), cluster("b", "b")], hcm={
        "route_config": None, "rds": {"route_config_name": "routes", "config_source": source}})


def clusters(*messages):
    return [resource("Cluster", message) for message in messages]


def cds():
    config = http(to("a", {"prefix": "/a"}), to("b", {"prefix": "/b"}), to("up"), clusters=[],
                  route_config={"validate_clusters": False})
    return {**config, "dynamic_resources": {"cds_config": from_file("cds.json")}}


def listener(to_cluster, name="test", at="@port@", **fields):
    found = http(to(to_cluster), clusters=[], route_config={"name": f"routes-{name}"})["static_resources"]["listeners"][0]
    return resource("Listener", {**found, "name": name, "address": address(at), **fields})


def lds():
    config = http(clusters=[cluster("a", "a"), cluster("b", "b")])
    config["static_resources"]["listeners"] = []
    return {**config, "dynamic_resources": {"lds_config": from_file("lds.json")}}


def of_eds(name, *clients, first=None, **fields):
    """The first client asks before anything changes."""
    return Case(f"EDS: {name}", http(clusters=[eds()]), [ask(get()), *clients], NAMED, stats=STATS,
                files={"eds.json": [endpoints("a")] if first is None else first}, **fields)


def of_rds(name, *clients, first=None):
    return Case(f"RDS: {name}", rds(), [ask(get()), *clients], NAMED, stats=STATS,
                files={"rds.json": [routes(to("a"))] if first is None else first})


def of_cds(name, *clients, first=None):
    first = clusters(cluster("a", "a"), cluster("b", "b")) if first is None else first
    return Case(f"CDS: {name}", cds(), [ask(get("/a")), *clients], NAMED, stats=STATS,
                files={"cds.json": first, "eds.json": [endpoints("a")]})


def of_lds(name, *clients, first=None):
    return Case(f"LDS: {name}", lds(), [ask(get()), *clients], NAMED, stats=STATS,
                files={"lds.json": [listener("a")] if first is None else first})


def changes(file, resources, **fields):
    """A client that changes a file between two requests on one connection, and one that comes afterwards."""
    return [*ASK, Put(file, resources, **fields), *ASK], ask(get())


SLOWLY = [[ReadHead(), Send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst"), Wait(2), Send(b"later")]]
LATER = [Send(get()), Wait(0.3)]

CASES = [
    of_eds("another endpoint", *changes("eds.json", [endpoints("b")]), [DUMP, Page("/listeners"), Page("/init_dump")]),
    of_eds("written in place", *changes("eds.json", [endpoints("b")], way="in place")),
    of_eds("an empty list of endpoints", *changes("eds.json", [endpoints()]), [DUMP]),
    of_eds("no resources", *changes("eds.json", []), [DUMP]),
    of_eds("no JSON", *changes("eds.json", "{ nonsense"), [DUMP]),
    of_eds("an empty file", *changes("eds.json", "")),
    of_eds("another name", *changes("eds.json", [endpoints("b", name="other")])),
    of_eds("another type", *changes("eds.json", [routes(name="up")])),
    of_eds("two of one name", *changes("eds.json", [endpoints("b"), endpoints("a")])),
    of_eds("a port that is none", *changes("eds.json", [resource("ClusterLoadAssignment", {
        "cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(99999)}}]}]})])),
    of_eds("the same again", *changes("eds.json", [endpoints("a")])),
    of_eds("good after bad", *changes("eds.json", "{"), *changes("eds.json", [endpoints("b")], version="3"), [DUMP]),
    of_eds("a file that is not there", [Put("eds.json", [endpoints("a")]), DUMP], ask(get()), first="{"),
    Case("EDS: an endpoint goes with a request in progress", http(clusters=[eds()]),
         [[*LATER, Put("eds.json", [endpoints("b")]), Response(), *ASK]],
         {"a": SLOWLY, "b": NAMED["b"]}, stats=STATS, files={"eds.json": [endpoints("a")]}),
    Case("EDS: a directory that is watched", http(clusters=[eds(eds_cluster_config={"eds_config": {
        "path_config_source": {"path": "@directory@/eds.json", "watched_directory": {"path": "@directory@"}}}})]),
         [[*ASK, Put("eds.json", [endpoints("b")], way="link"), *ASK,
           Put("eds.json", [endpoints("a")], way="link"), *ASK]],
         NAMED, stats=STATS, files={"eds.json": [endpoints("a")]}),

    of_rds("other routes", *changes("rds.json", [routes(to("b"))]), [DUMP]),
    of_rds("written in place", *changes("rds.json", [routes(to("b"))], way="in place")),
    of_rds("no resources", *changes("rds.json", []), [DUMP]),
    of_rds("no JSON", *changes("rds.json", "{ nonsense"), [DUMP]),
    of_rds("another name", *changes("rds.json", [routes(to("b"), name="other")])),
    of_rds("another type", *changes("rds.json", [endpoints("b", name="routes")])),
    of_rds("two of one name", *changes("rds.json", [routes(to("b")), routes(to("a"))])),
    of_rds("a domain twice", *changes("rds.json", [{**routes(to("b")), "virtual_hosts": [
        {"name": name, "domains": ["*"], "routes": [to("b")]} for name in ("x", "y")]}])),
    of_rds("a cluster that is not there", *changes("rds.json", [routes(to("nowhere"))])),
    of_rds("a cluster that must be there", *changes("rds.json", [routes(to("nowhere"), validate_clusters=True)])),
    of_rds("the same again", *changes("rds.json", [routes(to("a"))])),
    of_rds("a bad file at the start", *changes("rds.json", [routes(to("b"))]), [DUMP], first="{"),
    of_rds("no resources at the start", *changes("rds.json", [routes(to("b"))]), first=[]),

    of_cds("another endpoint", *changes("cds.json", clusters(cluster("a", "b"), cluster("b", "b"))), [DUMP]),
    of_cds("one more and one less", [Put("cds.json", clusters(cluster("a", "a"), cluster("up", "b")))],
           ask(get("/b")), ask(get("/")), ask(get("/a")), [DUMP, Page("/clusters")]),
    of_cds("no resources", [Put("cds.json", [])], ask(get("/a")), [DUMP]),
    of_cds("no JSON", [Put("cds.json", "{ nonsense")], ask(get("/a")), [DUMP]),
    of_cds("another type in it", [Put("cds.json", [*clusters(cluster("a", "b")), routes()])], ask(get("/a"))),
    of_cds("one name twice", [Put("cds.json", clusters(cluster("a", "b"), cluster("a", "a")))], ask(get("/a"))),
    of_cds("one that is bad", [Put("cds.json", clusters(cluster("up", "b"), cluster("a", "b"), {
        **cluster("b", "a"), "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 100, "maximum_ring_size": 10}}))],
           ask(get("/a")), ask(get("/")), ask(get("/b"))),
    of_cds("the same under another version", [Put("cds.json", clusters(cluster("a", "a"), cluster("b", "b")))],
           ask(get("/a")), [DUMP]),
    of_cds("a cluster with endpoints from a file", [Put("cds.json", clusters(cluster("a", "a"), eds()))], ask(get("/")),
           [DUMP, Page("/clusters")]),
    of_cds("a bad file at the start", ask(get("/a")), [Put("cds.json", clusters(cluster("a", "a")))], ask(get("/a")),
           [DUMP], first="{"),
    Case("CDS: a cluster goes with a request in progress", cds(),
         [[Send(get("/a")), Wait(0.3), Put("cds.json", clusters(cluster("b", "b"))), Response(), Send(get("/b")), Response(),
           Send(get("/a")), Response()]],
         {"a": SLOWLY, "b": NAMED["b"]}, stats=STATS, files={"cds.json": clusters(cluster("a", "a"), cluster("b", "b"))}),
    Case("CDS: another connect timeout", cds(), [
        [Send(get("/a")), Response(), Put("cds.json", clusters(cluster("a", "a", connect_timeout="3s"))),
         Send(get("/a")), Response()]],
         NAMED, stats=STATS, files={"cds.json": clusters(cluster("a", "a"))}),

    of_lds("other routes", *changes("lds.json", [listener("b")]), [DUMP]),
    of_lds("another limit", *changes("lds.json", [listener("b", per_connection_buffer_limit_bytes=100000)])),
    of_lds("one more", [Put("lds.json", [listener("a"), listener("b", "more", "@listener:more@")])],
           [At("more"), *ASK], ask(get()), [DUMP, Page("/listeners"), Page("/listeners?format=json")]),
    of_lds("another address", [Put("lds.json", [listener("b", at="@listener:more@")])], [At("more"), *ASK], ask(get()),
           [Page("/listeners")]),
    of_lds("none", [*ASK, Put("lds.json", [])], ask(get()), [Page("/listeners")]),
    of_lds("no JSON", *changes("lds.json", "{ nonsense"), [DUMP]),
    of_lds("another type in it", *changes("lds.json", [listener("b"), *clusters(cluster("up", "a"))])),
    of_lds("one name twice", *changes("lds.json", [listener("b"), listener("a", at="@listener:more@")]), [At("more"), *ASK]),
    of_lds("a port that is taken", [Put("lds.json", [listener("b"), listener("b", "more", "@port:a@")])], ask(get()), [DUMP]),
    of_lds("one that is bad", [Put("lds.json", [listener("b", filter_chains=[]), listener("b", "more", "@listener:more@")])],
           ask(get()), [At("more"), *ASK], [DUMP]),
    of_lds("the same under another version", *changes("lds.json", [listener("a")]), [DUMP]),
    of_lds("a bad file at the start", [Put("lds.json", [listener("a")])], ask(get()), first="{"),
]
