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

fn change(context: &AdminContext, query: &Query) -> Result<(), String> {
    for (key, value) in query.pairs() {
        match key.as_str() {
            "level" => context.log.set(None, value)?,
            "paths" => {
                for path in value.split(',') {
                    let (name, level) = path
                        .rsplit_once(':')
                        .ok_or_else(|| format!("`{path}` is not of the form name:level"))?;
                    context.log.set(Some(name), level)?;
                }
            }
            // Envoy's short form, `/logging?router=debug`.
            name => context.log.set(Some(name), value)?,
        }
    }
    Ok(())
}
