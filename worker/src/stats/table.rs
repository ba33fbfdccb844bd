//! Declares groups of metrics: their fields, names, kinds and help in one place.

/// One row of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Name below the scope, `downstream_cx_total`.
    pub(super) name: &'static str,
    /// What it says, for `# HELP`.
    pub(super) help: &'static str,
}

/// Declares a struct of handles, its constructor from a naming function, and its rows.
macro_rules! group {
    (
        $(#[$meta:meta])*
        pub struct $group:ident, rows $rows:ident, lazy [$($lazy:ident: $lazy_type:ty),*];
        $($kind:ident $field:ident $help:literal;)*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $group {
            $(#[doc = $help] pub $field: group!(@type $kind),)*
            $($lazy: $lazy_type,)*
        }

        pub(super) const $rows: &[$crate::stats::table::Row] = &[
            $($crate::stats::table::Row { name: stringify!($field), help: $help },)*
        ];

        impl $group {
            fn define(
                stats: &$crate::stats::ThreadStats,
                name: impl Fn(&str) -> $crate::stats::MetricName,
                $($lazy: $lazy_type,)*
            ) -> Self {
                Self {
                    $($field: stats.$kind(&name(stringify!($field))),)*
                    $($lazy,)*
                }
            }
        }
    };
    (@type counter) => { $crate::stats::Counter };
    (@type gauge) => { $crate::stats::Gauge };
    (@type local_gauge) => { $crate::stats::Gauge };
    (@type histogram) => { $crate::stats::Histogram };
}
pub(super) use group;

/// What the metrics of a family say, if the family is one of baton's tables.
pub fn help(family: &str) -> Option<&'static str> {
    let (scope, name) = family.split_once('.')?;
    let updates = [super::updates::ROWS, super::updates::MORE_ROWS];
    let of_file = ["cds.", "lds.", "rds."].iter().find_map(|kind| name.strip_prefix(kind));
    if let Some(name) = of_file {
        return updates.into_iter().flatten().find(|row| row.name == name).map(|row| row.help);
    }
    let rows: &[&[Row]] = match scope {
        "http" => &[super::http::ROWS, super::http::CODE_ROWS],
        "cluster" => &[
            super::cluster::ROWS,
            super::cluster::MEMBERSHIP_ROWS,
            super::cluster::CODE_ROWS,
            super::updates::ROWS,
        ],
        "listener" => &[super::listener::ROWS],
        "tcp" => &[super::tcp::ROWS],
        "server" => &[super::server::SERVER_ROWS],
        "cluster_manager" => &[super::server::CLUSTER_MANAGER_ROWS, super::changes::CLUSTER_ROWS],
        "listener_manager" => {
            &[super::server::LISTENER_MANAGER_ROWS, super::changes::LISTENER_ROWS]
        }
        _ => &[],
    };
    rows.iter().copied().flatten().find(|row| row.name == name).map(|row| row.help)
}
