//! Which virtual host an authority belongs to.

use std::collections::HashMap;

use super::VirtualHost;

/// Positions of virtual hosts by (part of a) name.
type Names = HashMap<Box<[u8]>, usize>;

/// The domains of all virtual hosts. Values are positions of virtual hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Domains {
    exact: Names,
    /// What follows the `*` of `*.example.com`, by length, longest first.
    suffixes: Vec<(usize, Names)>,
    /// What precedes the `*` of `example.*`, by length, longest first.
    prefixes: Vec<(usize, Names)>,
    any: Option<usize>,
}

impl Domains {
    pub(super) fn new(virtual_hosts: &[VirtualHost]) -> Self {
        let mut domains = Self::default();
        for (position, host) in virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                domains.add(&domain.to_ascii_lowercase(), position);
            }
        }
        domains.suffixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        domains.prefixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        domains
    }

    fn add(&mut self, domain: &str, position: usize) {
        if domain == "*" {
            self.any.get_or_insert(position);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            wildcard(&mut self.suffixes, suffix, position);
        } else if let Some(prefix) = domain.strip_suffix('*') {
            wildcard(&mut self.prefixes, prefix, position);
        } else {
            self.exact.entry(domain.as_bytes().into()).or_insert(position);
        }
    }

    /// Exact name, longest `*.suffix`, longest `prefix.*`, `*`. The port is part of the name.
    pub(super) fn find(&self, authority: &[u8]) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any;
        }
        let mut short = [0; 128];
        let long;
        let name = if let Some(name) = short.get_mut(..authority.len()) {
            name.copy_from_slice(authority);
            name.make_ascii_lowercase();
            &*name
        } else {
            long = authority.to_ascii_lowercase();
            &*long
        };
        // A wildcard stands for one character at least, as `<` says.
        let longer = |(length, _): &&(usize, _)| *length < name.len();
        let suffix = || {
            self.suffixes
                .iter()
                .filter(longer)
                .find_map(|(length, names)| names.get(name.get(name.len() - length..)?))
        };
        let prefix = || {
            self.prefixes
                .iter()
                .filter(longer)
                .find_map(|(length, names)| names.get(name.get(..*length)?))
        };
        self.exact.get(name).or_else(suffix).or_else(prefix).copied().or(self.any)
    }
}

fn wildcard(by_length: &mut Vec<(usize, Names)>, text: &str, position: usize) {
    let at = by_length.iter().position(|(length, _)| *length == text.len());
    let at = at.unwrap_or_else(|| {
        by_length.push((text.len(), HashMap::new()));
        by_length.len() - 1
    });
    if let Some((_, names)) = by_length.get_mut(at) {
        names.entry(text.as_bytes().into()).or_insert(position);
    }
}
