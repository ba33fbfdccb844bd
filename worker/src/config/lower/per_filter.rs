//! `typed_per_filter_config`: what a level of the route table says about single filters of the chain.
//!
//! Each route gets the whole of it: what the levels around it say, less specific ones first. So
//! nothing is looked up by name when a request comes.

use super::{
    super::{
        hcm::HttpFilter,
        message::{Msg, Value},
        route::{FilterLevel, FilterLevels},
        settings::SharedSettings,
        source::At,
    },
    Lower,
    route::User,
};

const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
/// What `config: {}` of a [`FILTER_CONFIG`] is decoded as.
const EMPTY: &str = "google.protobuf.Empty";

/// What an entry says.
#[derive(Debug)]
struct Said {
    disabled: bool,
    settings: Option<SharedSettings>,
}

impl Lower<'_> {
    /// What holds below a level: what it says itself, and before it what its surroundings say.
    pub(super) fn filter_levels(
        &self,
        message: &Msg,
        around: &FilterLevels,
        user: Option<User<'_>>,
    ) -> FilterLevels {
        let set = message.get("typed_per_filter_config");
        let Some(Value::Map(entries)) = set.map(|set| &set.item.value) else {
            return around.clone();
        };
        let Some(User { filters: chain, .. }) = user else {
            self.needs_user.set(true);
            return None;
        };
        let mut levels = match around {
            Some(around) => around.to_vec(),
            None => vec![FilterLevel::default(); chain.len()],
        };
        for (name, item) in entries {
            let Some(content) = item.message() else { continue };
            if !chain.iter().any(|filter| filter.name == *name) {
                // A filter with a mistake is not there either.
                if !self.report.has_errors() {
                    let text =
                        format!("there is no `{name}` in `http_filters`, so this has no effect");
                    self.report.warning(&item.at, text);
                }
                continue;
            }
            for (filter, level) in chain.iter().zip(&mut levels) {
                if filter.name == *name
                    && let Some(said) = self.said(content, filter, &item.at)
                {
                    level.disabled = Some(said.disabled);
                    level.settings.extend(said.settings);
                }
            }
        }
        Some(levels.into())
    }

    fn said(&self, content: &Msg, filter: &HttpFilter, at: &At) -> Option<Said> {
        if content.ty.full_name != FILTER_CONFIG {
            let settings = self.of_route(content, filter)?;
            return Some(Said { disabled: false, settings: Some(settings) });
        }
        if content.flag("disabled") == Some(true) {
            let known = self.extensions.http_filter(filter.message);
            if known.is_some_and(|known| known.is_terminal) {
                let text = format!("`{}` is terminal: it cannot be switched off", filter.name);
                self.report.error(at, text);
            }
            return Some(Said { disabled: true, settings: None });
        }
        let Some(inner) = content.message("config") else {
            self.report
                .error(at, format!("this says nothing about `{}`", filter.name))
                .hint("set `disabled: true` or `config`; `config: {}` switches the filter on");
            return None;
        };
        if inner.ty.full_name == EMPTY {
            return Some(Said { disabled: false, settings: None });
        }
        let settings = self.of_route(inner, filter)?;
        Some(Said { disabled: false, settings: Some(settings) })
    }

    fn of_route(&self, content: &Msg, filter: &HttpFilter) -> Option<SharedSettings> {
        let known = self.extensions.http_filter(filter.message)?;
        let name = content.ty.full_name.as_str();
        match known.per_route {
            Some((message, lower)) if message == name => lower(self, content),
            // What baton does not know at all was reported already.
            _ if content.ty.support.is_none() => None,
            Some((message, _)) => {
                let text = format!("`{}` is configured by another message here", filter.name);
                self.report.error(&content.at, text).hint(format!("write `{message}`"));
                None
            }
            None => {
                let text = format!("`{}` has no configuration for routes", filter.name);
                let hint = format!("write `{FILTER_CONFIG}` to switch it on or off");
                self.report.error(&content.at, text).hint(hint);
                None
            }
        }
    }
}
