"""How paths are read, made normal, matched and rewritten."""

from ..case import Case, Serve, ask, get, http, request, to

UP = {"up": [[Serve()]]}
PATHS = ["/a%2Fb", "/a%2fb%5Cc", "/a%5cb", "/%2e%2e/a", "/x/%2E%2e/a", "/a//b", "//a", "/a/./b", "/a/../b", "/../a",
         "/a/..", "/a/.", "/a/..;/b", "/x/..;a=b/admin", "/x/.;/b", "/a;b/c", "/x/..%3b/b", "/a\\b", "/a/..\\b", "/a%00b",
         "/a%20b", "/a%zz", "/a%", "/a%2", "/a%41", "/%61", "/a?b=c#d", "/a#b", "/a?b=../c", "/a?b//c", "?q", "*", "a",
         "/a?", "/a??b", "/\"<>{}^|`", "/a'b", "/%C3%A9", "/a%252Fb", "/a;", "/...", "/a/...", "/a/.../b", "/.hidden"]
BYTES = [b"/\xc3\xa9", b"/\xe9", b"/a\x7fb", b"/a\x01b", b"/a\tb"]


def each(name, paths, **hcm):
    """One case for each path, so that a difference names it."""
    return [Case(f"path {path if isinstance(path, str) else repr(path)}, {name}", http(hcm=hcm), [ask(get(path))], UP)
            for path in paths]


NORMAL = {"normalize_path": True}
ESCAPED = ["/a%2Fb", "/a%2fb%5Cc", "/x%2f..%2fadmin?q=%2F", "/plain"]
ROUTES = http(
    {"match": {"prefix": "/deny"}, "direct_response": {"status": 403}},
    to(match={"path": "/exact"}, prefix_rewrite="/changed"),
    to(match={"prefix": "/pre"}, prefix_rewrite="/"),
    to(match={"path_separated_prefix": "/sep"}, prefix_rewrite="/other"),
    to(match={"safe_regex": {"regex": "/re/[0-9]+"}},
       regex_rewrite={"pattern": {"regex": "^/re/([0-9]+)$"}, "substitution": "/n/\\1/x"}),
    to(match={"prefix": "/case", "case_sensitive": False}),
    to(match={"prefix": "/q", "query_parameters": [{"name": "a", "string_match": {"exact": "1"}}]}),
    to(match={"prefix": "/h", "headers": [{"name": "x-a", "string_match": {"safe_regex": {"regex": "[^x]+"}}}]}),
)

CASES = [
    *each("as it is", PATHS + BYTES, normalize_path=False),
    *each("normal", PATHS + BYTES, **NORMAL),
    *each("merged", ["/a//b", "///a", "/a//../b", "/a/b//", "/a?b//c"], merge_slashes=True, **NORMAL),
    *(case for action in ["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]
      for case in each(action, ESCAPED, path_with_escaped_slashes_action=action, **NORMAL)),
    *each("by default", ["/a/../b", "/a%2Fb", "//a", "/a%41"]),
    Case("routes and rewriting", ROUTES,
         [ask(get(path, *lines)) for path, *lines in
          [["/deny/x"], ["/exact?q=1"], ["/exact/"], ["/pre/x?y"], ["/prefix"], ["/pre"], ["/sep"], ["/sep/a"], ["/separate"],
           ["/re/12"], ["/re/12/"], ["/re/12?x"], ["/CaSe"], ["/q?a=1"], ["/q?a=2"], ["/q?b=1&a=1"], ["/q?a"],
           ["/h", b"x-a: \xe9"], ["/h", "x-a: x"], ["/h"], ["/h", "x-a: "], ["/h", "x-a: a", "x-a: b"]]], UP),
    Case("methods", http(), [ask(request(method, "/")) for method in
                             ["OPTIONS", "PROPFIND", "DELETE", "POST", "PUT", "PATCH", "get", "M-SEARCH", "X"]], UP),
    Case("OPTIONS *", http(), [ask(request("OPTIONS", "*"))], UP),
]
