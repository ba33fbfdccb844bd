//! `/logging`: levels of the program's log.

use std::fmt::Write as _;

use hyper::StatusCode;

use super::{AdminContext, Answer, query::Query};

/// Answers `/logging`: changes what is asked for, then lists all levels.
pub(super) fn answer(context: &AdminContext, query: &Query) -> Answer {
    if let Err(reason) = change(context, query) {
        return Answer::error(StatusCode::BAD_REQUEST, format!("error: {reason}\n"));
    }
    let mut text = "active loggers:\n".to_owned();
    for (name, level) in context.log.levels() {
        // Writing to a string cannot fail.
        writeln!(text, "  {name}: {level}").ok();
    }
    text.push('\n');
    Answer::text(text)
}

/// `component` is empty for all. The line comes before the change, which may silence it.
fn set(context: &AdminContext, component: &str, level: &str) -> Result<(), String> {
    let action = "set the level of the log";
    tracing::info!(action, component, level, "asked for on the admin interface");
    context.log.set(Some(component).filter(|name| !name.is_empty()), level)
}

fn change(context: &AdminContext, query: &Query) -> Result<(), String> {
    for (key, value) in query.pairs() {
        match key.as_str() {
            "level" => set(context, "", value)?,
            "paths" => {
                for path in value.split(',') {
                    let (name, level) = path
                        .rsplit_once(':')
                        .ok_or_else(|| format!("`{path}` is not of the form name:level"))?;
                    set(context, name, level)?;
                }
            }
            // Envoy's short form, `/logging?router=debug`.
            name => set(context, name, value)?,
        }
    }
    Ok(())
}
