//! What a metric is called.

/// What a metric counts and how generations are added up.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Kind {
    /// Only rises. Continues over reloads and crashes.
    Counter = 1,
    /// Rises and falls; the sum over all live generations. Gone with its generation.
    Gauge = 2,
    /// Rises and falls; the value of the newest serving generation only (its number of clusters,
    /// its threads), because adding generations up would mean nothing.
    LocalGauge = 3,
    /// A distribution of whole numbers. Continues over reloads and crashes.
    Histogram = 4,
}

/// Full name, family and tags of a metric.
///
/// Envoy's `http.ingress.downstream_rq_2xx` has the family `http.downstream_rq_xx` and the tags
/// `envoy.response_code_class="2"` and `envoy.http_conn_manager_prefix="ingress"`. `/stats` shows
/// the full name, Prometheus the family and the tags.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MetricName {
    pub(crate) name: String,
    pub(crate) family: String,
    pub(crate) tags: Vec<(String, String)>,
}

impl MetricName {
    /// A metric without tags.
    pub fn plain(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { family: name.clone(), name, tags: Vec::new() }
    }

    /// A metric with tags, in the order they are shown.
    pub fn tagged(
        name: impl Into<String>,
        family: impl Into<String>,
        tags: &[(&str, &str)],
    ) -> Self {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self { name: name.into(), family: family.into(), tags: tags.collect() }
    }

    /// `http.ingress.downstream_rq_2xx`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `http.downstream_rq_xx`.
    pub fn family(&self) -> &str {
        &self.family
    }

    /// Tags, `envoy.response_code_class` and so on.
    pub fn tags(&self) -> &[(String, String)] {
        &self.tags
    }
}

impl Kind {
    /// The kind with this number.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        [Self::Counter, Self::Gauge, Self::LocalGauge, Self::Histogram]
            .into_iter()
            .find(|kind| *kind as u64 == number)
    }
}

impl MetricName {
    /// All parts with a NUL between them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let tags = self.tags.iter().flat_map(|(key, value)| [key, value]);
        let mut text = Vec::new();
        for (index, part) in [&self.name, &self.family].into_iter().chain(tags).enumerate() {
            if index > 0 {
                text.push(0);
            }
            text.extend(part.bytes().map(|byte| if byte == 0 { b'_' } else { byte }));
        }
        text
    }

    /// The reverse of [`MetricName::encode`]; `None` for anything that did not come from it.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split('\0').map(str::to_owned);
        let (name, family) = (parts.next()?, parts.next()?);
        let mut tags = Vec::new();
        while let Some(key) = parts.next() {
            tags.push((key, parts.next()?));
        }
        Some(Self { name, family, tags })
    }
}
