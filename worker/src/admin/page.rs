//! `/`: a small page with the generations, the listeners and the endpoints.

use std::fmt::Write as _;

use baton_contract::shm::mono_ms;

use super::{
    AdminContext, Answer, endpoints::ENDPOINTS, extra::ServerState, listeners, query::Query,
};

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%}\
td,th{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #8884;\
vertical-align:top}\
td.n,th.n{text-align:right}code,button{font:13px ui-monospace,monospace}form{margin:0}";

/// Answers `/`.
pub(super) fn answer(context: &AdminContext, _: &Query) -> Answer {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>baton</title>\
         <style>{STYLE}</style><h1>baton {} · generation {} · {}</h1>",
        env!("CARGO_PKG_VERSION"),
        context.generation,
        ServerState::of(context).as_str(),
    );
    generations(context, &mut page);
    page += "<h2>Listeners</h2><table><tr><th>name<th>address";
    for listener in &context.shown.load().listeners {
        for address in &listener.addresses {
            let (name, address) = (escape(&listener.name), escape(&listeners::text(address)));
            // Writing to a string cannot fail, here and below.
            write!(page, "<tr><td>{name}<td><code>{address}</code>").ok();
        }
    }
    page += "</table><h2>Endpoints</h2><table>";
    for endpoint in ENDPOINTS {
        let (path, help) = (endpoint.path, escape(endpoint.help));
        if endpoint.mutates {
            write!(
                page,
                "<tr><td><form method=\"post\" action=\"{path}\"><button>{path}</button></form>\
                 <td>{help}"
            )
            .ok();
        } else {
            write!(page, "<tr><td><a href=\"{path}\"><code>{path}</code></a><td>{help}").ok();
        }
    }
    page += "</table></html>\n";
    Answer::html(page)
}

fn generations(context: &AdminContext, page: &mut String) {
    let now = mono_ms();
    *page += "<h2>Generations</h2><table><tr><th>generation<th>state<th class=n>pid\
              <th class=n>connections<th class=n>drain ends in";
    for row in context.reader.generations() {
        let left = match row.drain_deadline_ms {
            0 => "–".to_owned(),
            deadline => format!("{} s", deadline.saturating_sub(now) / 1000),
        };
        write!(
            page,
            "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{left}",
            row.generation,
            row.state.as_str(),
            row.pid,
            row.ledger.open(),
        )
        .ok();
    }
    *page += "</table>";
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
