//! Resources that are looked at once more: for `/config_dump`, and for those who use a route table.

use std::{cell::RefCell, sync::Arc};

use super::{
    super::{
        decode::Decoder,
        diagnostics::Diagnostic,
        dump,
        hcm::HttpConnectionManager,
        load::LoadOptions,
        lower::{resource as lower, route::User},
        message::Msg,
        overlay,
        route::RouteConfiguration,
        schema::Schema,
        source::{Path, Report},
        yaml::Node,
    },
    Context, Document, Entry, Resource,
    content::{self, Item, RESOURCES},
    judge,
};

/// A route table for one connection manager.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The table.
    pub routes: Arc<RouteConfiguration>,
    /// What the user should know all the same.
    pub warnings: Vec<Diagnostic>,
}

/// Entries as the JSON of Envoy's messages with their `@type`, secrets redacted, in the same order;
/// `null` for one that cannot be read any more. Decodes their documents anew.
pub fn json<'e>(
    entries: impl IntoIterator<Item = &'e Entry>,
    options: &LoadOptions,
) -> Vec<serde_json::Value> {
    let schema = Schema::new(options.extensions);
    let mut again = Again { options, schema: &schema, last: None };
    let to_json = |entry| {
        let report = Report::default();
        let message = again.message(entry, 0, &report);
        message.map_or(serde_json::Value::Null, |message| dump::message(&message))
    };
    entries.into_iter().map(to_json).collect()
}

/// The table of an entry for the connection manager that uses it. Most tables are the same for all of
/// them; one that says something about filters is made for their filters.
///
/// # Errors
/// What does not fit the connection manager; or that the entry is no route table.
pub fn routes_for(
    entry: &Entry,
    manager: &HttpConnectionManager,
    context: &Context<'_>,
) -> Result<Bound, Vec<Diagnostic>> {
    if let (Resource::Routes(routes), false) = (&entry.resource, entry.needs_user) {
        return Ok(Bound { routes: Arc::clone(routes), warnings: Vec::new() });
    }
    let mut report = Report::default();
    let text = String::from_utf8_lossy(&entry.document.bytes);
    let source = report.add_source(entry.document.path.display().to_string(), &text);
    let Context { bootstrap, options } = *context;
    let schema = Schema::new(options.extensions);
    let message = Again { options, schema: &schema, last: None }.message(entry, source, &report);
    let user = User { upgrades: &manager.upgrades, filters: &manager.filters };
    let table = message
        .filter(|message| message.ty.full_name == super::Kind::RouteConfiguration.message())
        .map(|message| lower::routes_for(&message, user, (bootstrap, options), &report));
    match table.filter(|_| !report.has_errors()) {
        Some(table) => Ok(Bound { routes: Arc::new(table), warnings: report.finish() }),
        None => Err(report.finish()),
    }
}

/// Decodes entries once more.
struct Again<'a> {
    options: &'a LoadOptions,
    schema: &'a Schema,
    /// The items of the document that was parsed as a whole last.
    last: Option<(Arc<Document>, Vec<Item>)>,
}

impl Again<'_> {
    fn message(&mut self, entry: &Entry, source: u8, report: &Report) -> Option<Msg> {
        let mut node = self.node(entry, source, report)?;
        let path = Path::default().key(RESOURCES).index(entry.position);
        if self.options.expand_env {
            overlay::expand(&mut node, &path, report);
        }
        let parents = RefCell::default();
        let decoder = Decoder { schema: self.schema, report, parents: &parents };
        judge::decode(&node, path, decoder)
    }

    fn node(&mut self, entry: &Entry, source: u8, report: &Report) -> Option<Node> {
        let text = std::str::from_utf8(&entry.document.bytes).ok()?;
        if let Some(piece) = &entry.piece {
            return content::item(text, piece, source, report).ok();
        }
        let is_last = |last: &(Arc<Document>, _)| Arc::ptr_eq(&last.0, &entry.document);
        if !self.last.as_ref().is_some_and(is_last) {
            let items = content::whole(text, source, report)?.items;
            self.last = Some((Arc::clone(&entry.document), items));
        }
        match self.last.as_ref()?.1.get(entry.position)? {
            Item::Tree(node, _) => Some(node.clone()),
            Item::Text(_) => None,
        }
    }
}
