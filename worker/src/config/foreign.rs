//! Files that are the configuration of something else: what they are, and what to do with them.

use super::source::{At, Path, Report, Span};

/// Lines that are looked at.
const LINES: usize = 200;

/// Reports a file that is no configuration of Envoy's; true when it is one of those that are known.
pub(crate) fn check(text: &str, source: u8, report: &Report) -> bool {
    let Some((line, what, hint)) = recognise(text) else { return false };
    let line = u32::try_from(line + 1).unwrap_or(u32::MAX);
    let at = At { span: Span { source, line, column: 1, length: 1 }, path: Path::default() };
    report.error(&at, format!("this is {what}, not a configuration of Envoy's")).hint(hint);
    true
}

/// The line that tells, what the file is, and what helps.
fn recognise(text: &str) -> Option<(usize, &'static str, &'static str)> {
    let lines = || text.lines().take(LINES).enumerate();
    let starts = |word: &str| lines().find(|(_, line)| line.starts_with(word)).map(|(n, _)| n);
    if let (Some(line), Some(_)) = (starts("apiVersion:"), starts("kind:")) {
        let hint =
            "baton reads the bootstrap itself: of a ConfigMap, what stands under its key in `data`";
        return Some((line, "a Kubernetes manifest", hint));
    }
    if text.lines().any(|line| line.starts_with("static_resources") || line.starts_with("admin:")) {
        return None;
    }
    let hint = "`examples/` has configurations to begin with";
    let nginx = |line: &str| {
        let block = ["server", "http", "events", "stream", "upstream", "location"];
        let word = line.split_whitespace().next().unwrap_or("");
        (block.contains(&word) && line.ends_with('{'))
            || (matches!(word, "worker_processes" | "proxy_pass" | "listen") && line.ends_with(';'))
    };
    if let Some((line, _)) = lines().find(|(_, line)| nginx(line.trim())) {
        return Some((line, "a configuration of nginx", hint));
    }
    let haproxy = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or("");
        matches!(word, "frontend" | "backend" | "defaults" | "global" | "listen")
            && !line.contains(':')
            && line.starts_with(word)
    };
    if lines().filter(|(_, line)| haproxy(line)).count() >= 2 {
        let line = lines().find(|(_, line)| haproxy(line)).map_or(0, |(line, _)| line);
        return Some((line, "a configuration of HAProxy", hint));
    }
    None
}
