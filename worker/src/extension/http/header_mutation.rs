//! `envoy.filters.http.header_mutation`: changes of headers, query parameters and trailers, one after
//! the other.
//!
//! Other than the header changes of routes, each change sees what the ones before it did. The filter's
//! own come first, then those of the levels around the route: the least specific one last, unless
//! `most_specific_header_mutations_wins`.

use std::{borrow::Cow, sync::Arc};

use super::{Making, Room};
use crate::{
    config::{
        extension::HttpExtension,
        lower::{Lower, common},
        matcher::StringMatcher,
        message::{Msg, Value},
        route::{AppendAction, HeaderAdd},
        settings::{SharedSettings, settings_of},
        support::{message, read, strict},
    },
    filter::http::{HttpFilter, Interest, Step, StreamContext},
    format::Format,
    http::{
        head::{RequestHead, ResponseHead},
        header_match,
        headers::Headers,
        query,
        stream_info::LogContext,
    },
};

const MESSAGE: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const OF_ROUTE: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";

/// Its entry in the list.
pub(super) const ROOM: Room = Room { known: &EXTENSION, make };

const EXTENSION: HttpExtension = HttpExtension {
    names: &["envoy.filters.http.header_mutation"],
    message: MESSAGE,
    may_be_empty: true,
    is_terminal: false,
    tables: &[
        message(
            MESSAGE,
            &[read("mutations", ""), read("most_specific_header_mutations_wins", "default false")],
        ),
        message(OF_ROUTE, &[read("mutations", "the levels add up")]),
        strict(
            "envoy.extensions.filters.http.header_mutation.v3.Mutations",
            &[
                read("request_mutations", "the route is found before them"),
                read(
                    "query_parameter_mutations",
                    "parameters stay in their order (Envoy sorts them by name)",
                ),
                read("response_mutations", ""),
                read("response_trailers_mutations", "only when there are trailers"),
                read("request_trailers_mutations", "only when there are trailers"),
            ],
        ),
        strict(
            "envoy.config.common.mutation_rules.v3.HeaderMutation",
            &[
                read("remove", ""),
                read("append", "not of `content-length` and `transfer-encoding`"),
                read("remove_on_match", ""),
            ],
        ),
        strict(
            "envoy.config.common.mutation_rules.v3.HeaderMutation.RemoveOnMatch",
            &[read("key_matcher", "")],
        ),
        strict("envoy.config.core.v3.KeyValueMutation", &[read("append", ""), read("remove", "")]),
        strict(
            "envoy.config.core.v3.KeyValueAppend",
            &[
                read("record", "the value is a string"),
                read("entry", "deprecated by Envoy: use `record`"),
                read("action", "default `APPEND_IF_EXISTS_OR_ADD`"),
            ],
        ),
        strict("envoy.config.core.v3.KeyValuePair", &[read("key", ""), read("value", "")]),
        strict("envoy.config.core.v3.KeyValue", &[read("key", ""), read("value", "")]),
    ],
    skippable: &[],
    lower,
    per_route: Some((OF_ROUTE, lower_of_route)),
};

/// All changes of one level.
#[derive(Debug, Default)]
struct Mutations {
    request: Vec<Mutation>,
    query: Vec<QueryMutation>,
    response: Vec<Mutation>,
    request_trailers: Vec<Mutation>,
    response_trailers: Vec<Mutation>,
}

/// A change of headers.
#[derive(Debug)]
enum Mutation {
    Add(HeaderAdd),
    Remove(String),
    RemoveMatching(StringMatcher),
}

/// A change of the query.
#[derive(Debug)]
enum QueryMutation {
    Add { name: String, value: Format, action: AppendAction },
    Remove(String),
}

/// The filter's own configuration.
#[derive(Debug)]
struct Settings {
    mutations: Mutations,
    most_specific_wins: bool,
}

fn lower(lower: &Lower<'_>, message: &Msg) -> Option<SharedSettings> {
    Some(Arc::new(Settings {
        mutations: mutations(lower, message)?,
        most_specific_wins: message.flag("most_specific_header_mutations_wins").unwrap_or(false),
    }))
}

fn lower_of_route(lower: &Lower<'_>, message: &Msg) -> Option<SharedSettings> {
    Some(Arc::new(mutations(lower, message)?))
}

fn mutations(lower: &Lower<'_>, message: &Msg) -> Option<Mutations> {
    let Some(message) = message.message("mutations") else { return Some(Mutations::default()) };
    let headers = |name| -> Option<Vec<Mutation>> {
        message.messages(name).map(|message| mutation(lower, message)).collect()
    };
    let query = message.messages("query_parameter_mutations");
    Some(Mutations {
        request: headers("request_mutations")?,
        query: query.map(|message| query_mutation(lower, message)).collect::<Option<_>>()?,
        response: headers("response_mutations")?,
        request_trailers: headers("request_trailers_mutations")?,
        response_trailers: headers("response_trailers_mutations")?,
    })
}

fn mutation(lower: &Lower<'_>, message: &Msg) -> Option<Mutation> {
    let (field, set) = common::chosen(message, "action")?;
    match field {
        "append" => {
            let add = set.item.message()?;
            let changed = lower.header_add(add)?;
            if is_framing(changed.name.as_bytes()) {
                let text =
                    format!("`{}` says where the message ends, it is not changed", changed.name);
                lower.report.error(&set.item.at, text);
                return None;
            }
            Some(Mutation::Add(changed))
        }
        "remove" => {
            let name = set.item.text();
            lower
                .may_change(name, &set.item.at)
                .then(|| Mutation::Remove(name.to_ascii_lowercase()))
        }
        "remove_on_match" => {
            let matcher = set.item.message()?.message("key_matcher")?;
            Some(Mutation::RemoveMatching(lower.string_matcher(matcher)?))
        }
        _ => None,
    }
}

fn query_mutation(lower: &Lower<'_>, message: &Msg) -> Option<QueryMutation> {
    let Some(add) = message.message("append") else {
        let name = message.text("remove");
        if name.is_empty() {
            lower
                .report
                .error(&message.at, "this mutation changes nothing")
                .hint("set `append` or `remove`");
            return None;
        }
        return Some(QueryMutation::Remove(name.to_owned()));
    };
    let action = match add.choice("action") {
        Some("ADD_IF_ABSENT") => AppendAction::AddIfAbsent,
        Some("OVERWRITE_IF_EXISTS_OR_ADD") => AppendAction::OverwriteIfExistsOrAdd,
        Some("OVERWRITE_IF_EXISTS") => AppendAction::OverwriteIfExists,
        _ => AppendAction::AppendIfExistsOrAdd,
    };
    let pair = add.message("record").or_else(|| add.message("entry"))?;
    let value = pair.get("value");
    let text = match value.map(|set| &set.item.value) {
        None => Cow::Borrowed(""),
        Some(Value::Bytes(bytes)) => String::from_utf8_lossy(bytes),
        Some(Value::Text(text) | Value::Json(serde_json::Value::String(text))) => {
            Cow::Borrowed(text.as_str())
        }
        Some(_) => {
            lower.report.error(&pair.at_of("value"), "the value of a parameter is a string");
            return None;
        }
    };
    let value = lower.format(&text, &pair.at_of("value"))?;
    Some(QueryMutation::Add { name: pair.text("key").to_owned(), value, action })
}

/// Names that say where a message ends: to change them would let a configuration smuggle requests.
fn is_framing(name: &[u8]) -> bool {
    matches!(name, b"content-length" | b"transfer-encoding")
}

fn make(settings: &SharedSettings, _: &Making<'_>) -> Option<Box<dyn HttpFilter>> {
    Some(Box::new(HeaderMutation { settings: settings_of(settings)? }))
}

/// The filter. It keeps nothing of a stream.
#[derive(Debug)]
struct HeaderMutation {
    settings: Arc<Settings>,
}

impl HeaderMutation {
    /// The levels in the order they are applied.
    fn levels<'a>(&'a self, cx: &'a StreamContext<'_>) -> impl Iterator<Item = &'a Mutations> {
        let (mut in_order, mut reversed) = (None, None);
        if self.settings.most_specific_wins {
            in_order = Some(cx.settings::<Mutations>());
        } else {
            reversed = Some(cx.settings::<Mutations>().rev());
        }
        let of_route = in_order.into_iter().flatten().chain(reversed.into_iter().flatten());
        std::iter::once(&self.settings.mutations).chain(of_route)
    }
}

impl HttpFilter for HeaderMutation {
    fn interest(&self) -> Interest {
        Interest::REQUEST_TRAILERS | Interest::RESPONSE_TRAILERS
    }

    fn on_request(&self, request: &mut RequestHead, cx: &mut StreamContext<'_>) -> Step {
        for level in self.levels(cx) {
            for mutation in &level.request {
                let value = mutation.value(&cx.log(request));
                mutation.apply(&value, &mut request.headers);
            }
            for mutation in &level.query {
                let value = mutation.value(&cx.log(request));
                mutation.apply(&value, &mut request.path);
            }
        }
        Step::Continue
    }

    fn on_request_trailers(
        &self,
        request: &RequestHead,
        trailers: &mut Headers,
        cx: &mut StreamContext<'_>,
    ) {
        for mutation in self.levels(cx).flat_map(|level| &level.request_trailers) {
            let value = mutation.value(&cx.log(request));
            mutation.apply(&value, trailers);
        }
    }

    fn on_response(
        &self,
        request: &RequestHead,
        response: &mut ResponseHead,
        cx: &mut StreamContext<'_>,
    ) {
        for mutation in self.levels(cx).flat_map(|level| &level.response) {
            let log = LogContext { response: Some(response), ..cx.log(request) };
            let value = mutation.value(&log);
            mutation.apply(&value, &mut response.headers);
        }
    }

    fn on_response_trailers(
        &self,
        request: &RequestHead,
        response: &ResponseHead,
        trailers: &mut Headers,
        cx: &mut StreamContext<'_>,
    ) {
        for mutation in self.levels(cx).flat_map(|level| &level.response_trailers) {
            let log = LogContext {
                response: Some(response),
                trailers: Some(trailers),
                ..cx.log(request)
            };
            let value = mutation.value(&log);
            mutation.apply(&value, trailers);
        }
    }
}

impl Mutation {
    /// What is to be added, as the message is now.
    fn value(&self, log: &LogContext<'_>) -> Vec<u8> {
        let mut value = Vec::new();
        match self {
            Self::Add(add) => add.value.write_value(&mut value, log),
            Self::Remove(_) | Self::RemoveMatching(_) => {}
        }
        // What the environment gave could hold a line break.
        for byte in value.iter_mut().filter(|byte| byte.is_ascii_control()) {
            *byte = b' ';
        }
        value
    }

    fn apply(&self, value: &[u8], headers: &mut Headers) {
        match self {
            Self::Add(add) => {
                if value.is_empty() && !add.keep_empty {
                    return;
                }
                let name = add.name.as_bytes();
                match add.action {
                    AppendAction::AddIfAbsent if headers.contains(name) => {}
                    AppendAction::OverwriteIfExists if !headers.contains(name) => {}
                    AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => {
                        headers.append(name, value);
                    }
                    AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
                        headers.set(name, value);
                    }
                }
            }
            Self::Remove(name) if is_framing(name.as_bytes()) => {}
            Self::Remove(name) => drop(headers.remove(name.as_bytes())),
            Self::RemoveMatching(matcher) => {
                headers.retain(|name, _| is_framing(name) || !header_match::string(matcher, name));
            }
        }
    }
}

impl QueryMutation {
    fn value(&self, log: &LogContext<'_>) -> Vec<u8> {
        let mut value = Vec::new();
        if let Self::Add { value: format, .. } = self {
            format.write_value(&mut value, log);
        }
        value
    }

    fn apply(&self, new: &[u8], path: &mut Vec<u8>) {
        match self {
            Self::Remove(name) => query::remove(path, name.as_bytes()),
            Self::Add { name, action, .. } => {
                let name = name.as_bytes();
                let exists = query::contains(path, name);
                match action {
                    AppendAction::AddIfAbsent if exists => {}
                    AppendAction::OverwriteIfExists if !exists => {}
                    AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
                        query::remove(path, name);
                        query::append(path, name, new);
                    }
                    AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => {
                        query::append(path, name, new);
                    }
                }
            }
        }
    }
}
