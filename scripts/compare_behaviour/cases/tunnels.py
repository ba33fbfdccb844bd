"""Upgrades, CONNECT and TCP."""

from ..case import (REFUSES, Case, Close, ReadEnd, ReadHead, Reset, Response, Send, Serve, ShutWrite, Upgraded, Wait, answer,
                    get, http, request, tcp, to)

WEBSOCKET = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
ASK = get("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: a")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def switched(name, reply, ask=ASK, hcm=None):
    return Case(name, http(hcm=hcm or WEBSOCKET), [[Send(ask), Response(), Send(b"ping"), ReadEnd()]],
                {"up": [[ReadHead(), Send(reply), Wait(0.3), Send(b"pong"), ShutWrite(), ReadEnd()]]})


CASES = [
    switched("an upgrade", SWITCH),
    switched("an upgrade with bytes behind it", SWITCH + b"first"),
    switched("an upgrade to another protocol than asked", SWITCH.replace(b"websocket", b"other")),
    switched("an upgrade to the protocol in capitals", SWITCH.replace(b"websocket", b"WebSocket")),
    switched("an upgrade without an Upgrade header", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"),
    switched("an upgrade without a Connection header", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    switched("a 101 nobody asked for", SWITCH, get()),
    switched("an upgrade with a list of protocols", SWITCH, get("/", "Connection: Upgrade", "Upgrade: websocket, other")),
    switched("an upgrade with another spelling", SWITCH, get("/", "Connection: keep-alive, upgrade", "Upgrade: WebSocket")),
    switched("an upgrade header without connection", SWITCH, get("/", "Upgrade: websocket")),
    switched("an upgrade with a body", SWITCH, request("POST", "/", "Connection: Upgrade", "Upgrade: websocket",
                                                       "Content-Length: 5", body=b"hello")),
    Case("an upgrade the backend refuses", http(hcm=WEBSOCKET), [[Send(ASK), Response()]],
         {"up": [[Serve(answer("403 Forbidden", body=b"no"))]]}),
    Case("an upgrade the backend answers with 200", http(hcm=WEBSOCKET), [[Send(ASK), Response()]], {"up": [[Serve()]]}),
    Case("an upgrade to a dead backend", http(hcm=WEBSOCKET), [[Send(ASK), Response()]], {"up": REFUSES}),
    Case("an upgrade the backend closes at once", http(hcm=WEBSOCKET), [[Send(ASK), Response()]],
         {"up": [[ReadHead(), Close()]]}),
    Case("an upgrade of a kind that is not listed", http(hcm=WEBSOCKET),
         [[Send(get("/", "Connection: Upgrade", "Upgrade: other")), ReadEnd()]], {"up": [[Serve()]]}),
    Case("an upgrade a route switches off", http(to(upgrade_configs=[{"upgrade_type": "websocket", "enabled": False}]),
                                                 hcm=WEBSOCKET), [[Send(ASK), ReadEnd()]], {"up": [[Serve()]]}),
    Case("a tunnel the client ends", http(hcm=WEBSOCKET), [[Send(ASK), Response(), Send(b"x"), ShutWrite(), ReadEnd()]],
         {"up": [[ReadHead(), Send(SWITCH), ReadEnd()]]}),
    Case("a tunnel the backend resets", http(hcm=WEBSOCKET), [[Send(ASK), Response(), ReadEnd()]],
         {"up": [[ReadHead(), Send(SWITCH), Wait(0.3), Reset()]]}),
    Case("CONNECT that ends here", http(to(match={"connect_matcher": {}}, upgrade_configs=[
        {"upgrade_type": "CONNECT", "connect_config": {}}]), hcm={"upgrade_configs": [{"upgrade_type": "CONNECT"}]}),
         [[Send(b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"), Response(head_only=True), Send(b"ping"), Upgraded(4)]],
         {"up": [[Send(b"pong"), ReadEnd()]]}),
    Case("CONNECT that is passed on", http(to(match={"connect_matcher": {}}, upgrade_configs=[
        {"upgrade_type": "CONNECT"}]), hcm={"upgrade_configs": [{"upgrade_type": "CONNECT"}]}),
         [[Send(b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"), Response(head_only=True), Send(b"ping"), Upgraded(4)]],
         {"up": [[ReadHead(), Send(b"HTTP/1.1 200 OK\r\n\r\npong"), ReadEnd()]]}),
    Case("TCP", tcp(), [[Send(b"ping"), Upgraded(4), ShutWrite(), ReadEnd()]],
         {"up": [[Send(b"pong"), ReadEnd()]]}),
    Case("TCP to a dead backend", tcp(), [[Send(b"ping"), ReadEnd()]], {"up": REFUSES}),
    Case("TCP and a backend that resets", tcp(), [[Send(b"ping"), ReadEnd()]], {"up": [[Wait(0.3), Reset()]]}),
    Case("TCP and a backend that closes", tcp(), [[Send(b"ping"), ReadEnd()]], {"up": [[Send(b"pong"), Close()]]}),
    Case("TCP and a client that is idle", tcp(idle_timeout="0.3s"), [[Send(b"ping"), ReadEnd()]],
         {"up": [[Send(b"pong"), ReadEnd()]]}),
]
