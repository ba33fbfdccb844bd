//! Which resources of a file are good.

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use super::{
    super::{
        decode::Decoder,
        diagnostics::Diagnostic,
        load::not_utf8,
        lower::{place, resource as lower},
        message::{Msg, Value as MessageValue},
        model::Address,
        overlay,
        schema::Schema,
        source::{At, Path, Report, Span},
        support,
        yaml::{Node, Value},
    },
    Context, Document, Entry, Kind, Read, Rejected, Resource,
    content::{self, Content, Item, NoNode, RESOURCES},
    cut::Piece,
};

/// The message that a file of resources is.
const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";
/// A message around a resource.
const WRAPPER: &str = "envoy.service.discovery.v3.Resource";

/// Reads a file of resources of one kind. `previous` finds what is known already by its hash; an entry of
/// another kind counts as unknown.
///
/// The numbers of the names of clusters that the resources speak of are given at once, also to resources
/// that are refused in the end.
///
/// # Errors
/// When the file as a whole is of no use: what is wrong with it.
pub fn read(
    document: &Arc<Document>,
    kind: Kind,
    context: &Context<'_>,
    previous: &dyn Fn(u128) -> Option<Entry>,
) -> Result<Read, Vec<Diagnostic>> {
    let mut report = Report::default();
    let name = document.path.display().to_string();
    let text = match std::str::from_utf8(&document.bytes) {
        Ok(text) => text,
        Err(error) => {
            not_utf8(name, &document.bytes, error.valid_up_to(), &mut report);
            return Err(report.finish());
        }
    };
    let source = report.add_source(name, text);
    let schema = Schema::new(context.options.extensions);
    let parents = RefCell::default();
    let decoder = Decoder { schema: &schema, report: &report, parents: &parents };
    let reader = Reader { document, text, source, kind, context, previous, decoder };
    let cut = content::cut(text, source, &report);
    if let Some(read) = cut.and_then(|content| reader.read(content)) {
        return Ok(read);
    }
    drop(report.set_aside());
    let read = content::whole(text, source, &report).and_then(|content| reader.read(content));
    read.ok_or_else(|| report.take())
}

/// Decodes an item.
pub(super) fn decode(node: &Node, path: Path, decoder: Decoder<'_>) -> Option<Msg> {
    let message = decoder.resource(node, path)?;
    if message.ty.full_name == WRAPPER { unwrap(message, decoder.report) } else { Some(message) }
}

/// The resource in a message around it.
fn unwrap(wrapper: Msg, report: &Report) -> Option<Msg> {
    let ty = Rc::clone(&wrapper.ty);
    let mut inner = None;
    let is_broken = !wrapper.broken.is_empty();
    for set in wrapper.fields {
        let name = ty.fields.get(set.index).map_or("", |field| field.name);
        match (name, set.item.value) {
            ("resource", MessageValue::Message(message)) => inner = Some(*message),
            ("name" | "version" | "aliases", _) => {}
            (name, _) => {
                report.error(&set.key, format!("`{name}` is not implemented by baton yet"));
            }
        }
    }
    if inner.is_none() && !is_broken {
        report.error(&wrapper.at, "`Resource` needs `resource`");
    }
    inner
}

struct Reader<'a> {
    document: &'a Arc<Document>,
    text: &'a str,
    source: u8,
    kind: Kind,
    context: &'a Context<'a>,
    previous: &'a dyn Fn(u128) -> Option<Entry>,
    decoder: Decoder<'a>,
}

/// What is taken already: names and addresses, with their lines.
#[derive(Default)]
struct Taken {
    names: HashMap<Arc<str>, u32>,
    places: HashMap<String, u32>,
}

/// What came of an item.
enum Judged {
    Good(Entry),
    Bad(Option<String>),
    /// It asks to be ignored.
    Ignored,
}

impl Reader<'_> {
    /// Judges everything; `None` when the file must be parsed as a whole, or is of no use, which was
    /// reported.
    fn read(&self, content: Content) -> Option<Read> {
        let report = self.decoder.report;
        let mut read = Read { version: self.version(content.header)?, ..Read::default() };
        read.warnings = report.take();
        let mut taken = Taken::default();
        for (position, item) in content.items.into_iter().enumerate() {
            let path = Path::default().key(RESOURCES).index(position);
            let at = At { span: self.start_of(&item), path };
            let judged = match self.judge(item, position, &at)? {
                Judged::Good(entry) => self.admit(entry, &at, &mut taken),
                Judged::Bad(name) => {
                    if let Some(name) = &name {
                        taken.names.entry(Arc::from(name.as_str())).or_insert(at.span.line);
                    }
                    Judged::Bad(name)
                }
                Judged::Ignored => Judged::Ignored,
            };
            match judged {
                Judged::Good(entry) => {
                    read.warnings.extend(report.take());
                    read.entries.push(entry);
                }
                Judged::Bad(name) => {
                    read.rejected.push(Rejected { name, position, diagnostics: report.take() });
                }
                Judged::Ignored => read.warnings.extend(report.take()),
            }
        }
        Some(read)
    }

    /// `version_info`; `None` when something is wrong with the fields beside the resources.
    fn version(&self, mut header: Node) -> Option<String> {
        let report = self.decoder.report;
        if self.context.options.expand_env {
            overlay::expand(&mut header, &Path::default(), report);
        }
        let ty = self.decoder.schema.message(RESPONSE)?;
        let message = self.decoder.document(&header, &ty)?;
        let version = message.peek("version_info").map_or("", |set| set.item.text());
        (!report.has_errors()).then(|| version.to_owned())
    }

    fn start_of(&self, item: &Item) -> Span {
        match item {
            Item::Tree(node, _) => node.span,
            Item::Text(piece) => {
                let text = self.text.get(piece.range.clone()).unwrap_or_default();
                let blanks = text.len() - text.trim_start_matches(' ').len();
                let blanks = u32::try_from(blanks).unwrap_or(u32::MAX);
                Span {
                    source: self.source,
                    line: piece.lines.saturating_add(1),
                    column: piece.columns.saturating_add(blanks).saturating_add(1),
                    length: 1,
                }
            }
        }
    }

    /// Judges an item by itself; `None` when its text does not stand for itself.
    fn judge(&self, item: Item, position: usize, at: &At) -> Option<Judged> {
        let report = self.decoder.report;
        let (mut node, piece, hash) = match item {
            Item::Text(piece) => {
                let hash = content::identify(self.text.get(piece.range.clone())?);
                if let Some(entry) = self.known(hash, position, Some(&piece)) {
                    return Some(Judged::Good(entry));
                }
                match content::item(self.text, &piece, self.source, report) {
                    Ok(node) => (node, Some(piece), hash),
                    Err(NoNode::Ignored) => return Some(Judged::Ignored),
                    Err(NoNode::Broken) => return None,
                }
            }
            Item::Tree(node, reported) => {
                let hash = content::identify_tree(&node);
                if reported.is_empty()
                    && let Some(entry) = self.known(hash, position, None)
                {
                    return Some(Judged::Good(entry));
                }
                report.put_back(reported);
                (node, None, hash)
            }
        };
        if self.context.options.expand_env {
            overlay::expand(&mut node, &at.path, report);
        }
        let lowered = self.lower(&node, at);
        let Some(lowered) = lowered.filter(|_| !report.has_errors()) else {
            return Some(Judged::Bad(self.name_of(&node)));
        };
        Some(Judged::Good(Entry {
            kind: self.kind,
            name: Arc::from(lowered.name.as_str()),
            hash,
            document: Arc::clone(self.document),
            position,
            resource: lowered.resource,
            shows_upstream_local: lowered.shows_upstream_local,
            needs_user: lowered.needs_user,
            piece,
        }))
    }

    /// What was good before and has the same text.
    fn known(&self, hash: u128, position: usize, piece: Option<&Piece>) -> Option<Entry> {
        let mut entry = (self.previous)(hash).filter(|entry| entry.kind == self.kind)?;
        entry.document = Arc::clone(self.document);
        entry.position = position;
        entry.piece = piece.cloned();
        Some(entry)
    }

    fn lower(&self, node: &Node, at: &At) -> Option<lower::Lowered> {
        let report = self.decoder.report;
        let message = decode(node, at.path.clone(), self.decoder)?;
        if message.ty.full_name != self.kind.message() {
            let at = message.at.with_span(message.type_url_span.unwrap_or(message.at.span));
            let found = message.ty.full_name.as_str();
            let text =
                format!("this file is read for `{}`, not for `{found}`", self.kind.message());
            let known = Kind::ALL.iter().any(|kind| kind.message() == found);
            let added = report.error(&at, text);
            if known {
                added.hint("write each kind of resource into its own file");
            }
            return None;
        }
        let Context { bootstrap, options } = *self.context;
        support::check(&message, options, report);
        lower::resource(&message, self.kind, (bootstrap, options), report)
    }

    /// The name of an item that is not good.
    fn name_of(&self, node: &Node) -> Option<String> {
        let inner = node.get("resource").map_or(node, |entry| &entry.value);
        let name = match self.kind.name_field() {
            "cluster_name" => inner.get("cluster_name").or_else(|| inner.get("clusterName")),
            field => inner.get(field),
        };
        match &name?.value.value {
            Value::Scalar { text, .. } if !text.is_empty() => Some(text.clone()),
            Value::Scalar { .. } | Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// Looks whether name and addresses are free.
    fn admit(&self, entry: Entry, at: &At, taken: &mut Taken) -> Judged {
        let report = self.decoder.report;
        let (word, name) = (entry.kind.word(), &entry.name);
        match taken.names.entry(Arc::clone(name)) {
            hash_map::Entry::Occupied(first) => {
                let first = first.get();
                report
                    .error(at, format!("{word} `{name}` stands twice, first on line {first}"))
                    .hint("the first one counts; give each its own name");
                return Judged::Bad(Some(name.to_string()));
            }
            hash_map::Entry::Vacant(free) => free.insert(at.span.line),
        };
        if self.is_static(&entry) {
            report
                .warning(at, format!("{word} `{name}` stands in the configuration itself"))
                .hint("that one stays, this one has no effect");
            return Judged::Ignored;
        }
        if let Resource::Listener(listener) = &entry.resource
            && self.wants_taken_address(&listener.addresses, at, taken)
        {
            return Judged::Bad(Some(name.to_string()));
        }
        Judged::Good(entry)
    }

    fn is_static(&self, entry: &Entry) -> bool {
        let bootstrap = self.context.bootstrap;
        match entry.kind {
            Kind::Cluster => {
                let index = bootstrap.cluster_names.get(&entry.name);
                let known = index.and_then(|index| bootstrap.clusters.get(index.0));
                known.is_some_and(|known| *known.name == *entry.name)
            }
            Kind::Listener => bootstrap.listeners.iter().any(|known| *known.name == *entry.name),
            Kind::ClusterLoadAssignment | Kind::RouteConfiguration => false,
        }
    }

    /// Reports addresses that somebody else listens on.
    fn wants_taken_address(&self, addresses: &[Address], at: &At, taken: &mut Taken) -> bool {
        let report = self.decoder.report;
        let bootstrap = self.context.bootstrap;
        let fixed = bootstrap.listeners.iter().flat_map(|listener| &listener.addresses);
        let fixed = fixed.chain(bootstrap.admin.as_ref().map(|admin| &admin.address));
        let fixed: Vec<String> = fixed.filter_map(place_of).collect();
        for place in addresses.iter().filter_map(place_of) {
            let text = if fixed.contains(&place) {
                format!("the address {place} is taken already, by the configuration itself")
            } else if let Some(first) = taken.places.get(&place) {
                format!("the address {place} is taken already, on line {first}")
            } else {
                continue;
            };
            report.error(at, text).hint("give each listener its own address or port");
        }
        if !report.has_errors() {
            let places = addresses.iter().filter_map(place_of);
            taken.places.extend(places.map(|place| (place, at.span.line)));
        }
        report.has_errors()
    }
}

/// An address that only one socket can have, in one spelling; `None` for port 0.
fn place_of(address: &Address) -> Option<String> {
    match address {
        Address::Ip(address) if address.port() == 0 => None,
        Address::Ip(address) => {
            Some(SocketAddr::new(address.ip().to_canonical(), address.port()).to_string())
        }
        Address::Name { host, port } => Some(format!("{host}:{port}")),
        Address::Pipe { path, .. } => Some(place::resolved(&path.display().to_string())),
    }
}
