//! From the bytes of a file to its items: cut, or parsed as a whole.

use super::{
    super::{
        diagnostics::Diagnostic,
        source::{At, Path, Report, Span},
        yaml::{self, Entry, Node, Origin, Value},
    },
    cut::Piece,
};

/// The key of the list.
pub(super) const RESOURCES: &str = "resources";

/// A file, taken apart.
#[derive(Debug)]
pub(super) struct Content {
    /// Everything but the resources.
    pub(super) header: Node,
    pub(super) items: Vec<Item>,
}

/// One item of `resources`.
#[derive(Debug)]
pub(super) enum Item {
    /// Its text.
    Text(Piece),
    /// What was parsed, and what was reported about it.
    Tree(Node, Vec<(Span, Diagnostic)>),
}

/// Takes a text apart without parsing its items; `None` when that is not possible.
pub(super) fn cut(text: &str, source: u8, report: &Report) -> Option<Content> {
    let cut = super::cut::cut(text)?;
    let root = yaml::parse(&cut.header, source, report);
    let is_good = !report.has_errors();
    // Positions in it are not those of the file, so the whole file is parsed for what is to be said.
    drop(report.set_aside());
    let Value::Mapping(mut entries) = root.filter(|_| is_good)?.value else { return None };
    let place = entries.iter().position(|entry| entry.key == RESOURCES)?;
    match entries.remove(place).value.value {
        Value::Null => {}
        Value::Sequence(items) if items.is_empty() => {}
        Value::Scalar { .. } | Value::Sequence(_) | Value::Mapping(_) => return None,
    }
    let header = mapping(entries, source);
    Some(Content { header, items: cut.items.into_iter().map(Item::Text).collect() })
}

fn mapping(entries: Vec<Entry>, source: u8) -> Node {
    let span = Span { source, line: 1, column: 1, length: 1 };
    Node { value: Value::Mapping(entries), span }
}

/// Parses a whole text. `None` = it is of no use, which was reported.
pub(super) fn whole(text: &str, source: u8, report: &Report) -> Option<Content> {
    let root = yaml::parse(text, source, report)?;
    let at = At { span: root.span, path: Path::default() };
    let mut entries = match root.value {
        Value::Mapping(entries) => entries,
        Value::Null => {
            report
                .error(&at, "there is nothing in this file")
                .hint("write `resources: []` if there shall be none");
            return None;
        }
        Value::Sequence(_) | Value::Scalar { .. } => {
            report
                .error(&at, "this is no file of resources: it is no mapping")
                .hint("write `resources:` above the list");
            return None;
        }
    };
    let place = entries.iter().position(|entry| entry.key == RESOURCES);
    let list = place.map(|place| entries.remove(place).value);
    let nodes = match list {
        None | Some(Node { value: Value::Null, .. }) => Vec::new(),
        Some(Node { value: Value::Sequence(nodes), .. }) => nodes,
        // Envoy takes one value where a list is expected.
        Some(node @ Node { value: Value::Mapping(_), .. }) => vec![node],
        Some(node @ Node { value: Value::Scalar { .. }, .. }) => {
            let at = At { span: node.span, path: Path::default().key(RESOURCES) };
            let text = format!("expected a list of resources, found {}", node.describe());
            report.error(&at, text);
            return None;
        }
    };
    let header = Node { value: Value::Mapping(entries), span: root.span };
    Some(Content { header, items: with_reports(nodes, report) })
}

/// What was reported about an item while the file was parsed belongs to that item.
fn with_reports(nodes: Vec<Node>, report: &Report) -> Vec<Item> {
    let path = format!("{RESOURCES}[");
    let reported = report.set_aside();
    let (mut of_items, others): (Vec<_>, Vec<_>) =
        reported.into_iter().partition(|(_, diagnostic)| diagnostic.field.starts_with(&path));
    report.put_back(others);
    let mut items = Vec::new();
    for (position, node) in nodes.into_iter().enumerate() {
        let path = Path::default().key(RESOURCES).index(position).to_string();
        let is_about = |diagnostic: &Diagnostic| {
            let rest = diagnostic.field.strip_prefix(&path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let own: Vec<_>;
        (own, of_items) = of_items.into_iter().partition(|(_, diagnostic)| is_about(diagnostic));
        items.push(Item::Tree(node, own));
    }
    report.put_back(of_items);
    items
}

/// Why the text of an item gives no node.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum NoNode {
    /// It is not well-formed by itself, or something is wrong with its keys or tags.
    Broken,
    /// It asks to be ignored.
    Ignored,
}

/// Parses the text of an item.
pub(super) fn item(text: &str, piece: &Piece, source: u8, report: &Report) -> Result<Node, NoNode> {
    let part = text.get(piece.range.clone()).ok_or(NoNode::Broken)?;
    let Piece { lines, columns, depth, .. } = *piece;
    let node = yaml::parse_part(part, Origin { source, lines, columns, depth }, report);
    // Reported positions are not those of the file either.
    let node = node.filter(|_| !report.has_errors()).ok_or(NoNode::Broken)?;
    // In block style the text has the dash, so it is a list.
    let is_block = depth == 1;
    match node.value {
        Value::Sequence(mut nodes) if is_block && nodes.len() <= 1 => {
            nodes.pop().ok_or(NoNode::Ignored)
        }
        Value::Mapping(_) if !is_block => Ok(node),
        Value::Null | Value::Scalar { .. } | Value::Sequence(_) | Value::Mapping(_) => {
            Err(NoNode::Broken)
        }
    }
}

/// The hash of a text: FNV-1a with 128 bits. It guards against mistakes, not against attackers: who can
/// write the file needs no collision.
pub(super) fn identify(text: &str) -> u128 {
    // A line more or less at the end says nothing, unless a text with `|+` keeps them.
    let text = if text.contains('+') { text } else { text.trim_end() };
    text.bytes().fold(OFFSET, step)
}

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

fn step(hash: u128, byte: u8) -> u128 {
    (hash ^ u128::from(byte)).wrapping_mul(PRIME)
}

/// The hash of what was parsed, whatever its positions.
pub(super) fn identify_tree(node: &Node) -> u128 {
    let mut hash = OFFSET;
    feed(node, &mut hash);
    hash
}

fn feed(node: &Node, hash: &mut u128) {
    // Lengths keep apart what would run together.
    let count = |length: usize, hash: &mut u128| {
        *hash = (length as u64).to_le_bytes().into_iter().fold(*hash, step);
    };
    let text = |text: &str, hash: &mut u128| {
        count(text.len(), hash);
        *hash = text.bytes().fold(*hash, step);
    };
    match &node.value {
        Value::Null => *hash = step(*hash, 0),
        Value::Scalar { text: content, plain } => {
            *hash = step(step(*hash, 1), u8::from(*plain));
            text(content, hash);
        }
        Value::Sequence(items) => {
            *hash = step(*hash, 2);
            count(items.len(), hash);
            for item in items {
                feed(item, hash);
            }
        }
        Value::Mapping(entries) => {
            *hash = step(*hash, 3);
            count(entries.len(), hash);
            for entry in entries {
                text(&entry.key, hash);
                feed(&entry.value, hash);
            }
        }
    }
}
