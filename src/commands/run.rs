//! `baton run`: the supervisor, in the foreground.

use std::{path::PathBuf, time::Duration};

use baton_contract::exit::Exit;
use baton_supervisor::{SupervisorError, SupervisorOptions};
use baton_worker::config::load::Source;

use super::validate::{self, Wanted};
use crate::{
    cli::{Mode, RunArgs},
    failure::Failure,
    logging, out,
};

/// Longest overlay, in bytes. It travels to the worker in one frame of 64 KiB, as JSON.
const OVERLAY_BYTES_MAX: usize = 24 * 1024;

/// Runs until the proxy is stopped.
///
/// # Errors
/// When it could not start.
pub(crate) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    if args.hot_restart_version {
        let version = baton_contract::version::PROTO_MAX;
        out::line(format_args!("baton.{version}"));
        return Ok(Exit::Ok);
    }
    if args.config_path.is_none() && args.config_yaml.is_none() {
        return Err(Failure::new(Exit::Usage, "no configuration was named").hint(
            "`baton run -c envoy.yaml` serves a file; `baton demo` shows a reload under load; \
             `baton help` lists everything",
        ));
    }
    if overlay(args).is_some_and(|text| text.len() > OVERLAY_BYTES_MAX) {
        let text = format!("`--config-yaml` beside a file is limited to {OVERLAY_BYTES_MAX} bytes");
        return Err(Failure::new(Exit::Usage, text).hint("put it into the file"));
    }
    if args.mode == Mode::Validate {
        let source = match (&args.config_path, &args.config_yaml) {
            (Some(path), _) => validate::read(path)?,
            (None, text) => Source {
                path: PathBuf::from("--config-yaml"),
                bytes: text.clone().unwrap_or_default().into_bytes(),
            },
        };
        return validate::check(
            &source,
            &Wanted { json: false, bind: false, read: &args.read, overlay: overlay(args) },
        );
    }
    logging::start(&args.log_level, &args.component_log_level)
        .map_err(|text| Failure::new(Exit::Usage, text))?;
    if args.restart_epoch.is_some_and(|epoch| epoch > 0) {
        tracing::warn!("--restart-epoch is ignored: `baton reload` starts the next generation");
    }
    if args.disable_hot_restart {
        tracing::info!("--disable-hot-restart has no effect: no reload, no new generation");
    }
    baton_supervisor::run(options(args)).map_err(|error| failure(&error))
}

/// `--config-yaml` beside a file: it is merged over it, as Envoy does.
fn overlay(args: &RunArgs) -> Option<&str> {
    args.config_path.as_ref().and(args.config_yaml.as_deref())
}

/// The levels for workers: the default one, then those of components, as in `info,http:debug`.
fn log_levels(args: &RunArgs) -> String {
    let levels = [args.log_level.as_str(), args.component_log_level.as_str()];
    levels.into_iter().filter(|levels| !levels.is_empty()).collect::<Vec<_>>().join(",")
}

fn options(args: &RunArgs) -> SupervisorOptions {
    let inline = args.config_yaml.clone().filter(|_| args.config_path.is_none());
    SupervisorOptions {
        config_path: args.config_path.clone().unwrap_or_else(|| PathBuf::from("--config-yaml")),
        config_inline: inline.map(String::into_bytes),
        config_overlay: overlay(args).unwrap_or_default().to_owned(),
        concurrency: args.concurrency,
        base_id: args.control.base_id,
        control_socket: args.control.control_socket.clone(),
        drain_time: Duration::from_secs(args.drain_time_s),
        parent_shutdown_time: Duration::from_secs(args.parent_shutdown_time_s),
        drain_strategy: args.drain_strategy.into(),
        on_removed: args.on_removed.into(),
        crash_escrow: args.crash_escrow.into(),
        start_timeout: Duration::from_secs(args.start_timeout_s),
        warm_timeout: Duration::from_secs(args.warm_timeout_s),
        probation: Duration::from_secs(args.probation_s),
        max_generations: args.max_generations as usize,
        stop_time: Duration::from_secs(args.stop_time_s),
        allow_unimplemented: args.read.allow_unimplemented,
        expand_env: args.read.expand_env,
        admin_allow_mutations: args.admin_allow_mutations,
        log_level: log_levels(args),
        service_node: args.service_node.clone(),
        service_cluster: args.service_cluster.clone(),
        ..SupervisorOptions::default()
    }
}

fn failure(error: &SupervisorError) -> Failure {
    let mut failure = Failure::of(error.exit(), error);
    if let SupervisorError::Config { diagnostics, .. } = error
        && !diagnostics.is_empty()
    {
        // They hold the line of the error again, with its place in the file.
        let diagnostics = diagnostics.join("\n");
        failure.text = format!("the configuration is invalid\n\n{}\n", diagnostics.trim_end());
        return failure.hint("`baton validate FILE` shows this without starting anything");
    }
    if let SupervisorError::ConfigFile { .. } = error {
        return failure.hint("name the file with `-c FILE`");
    }
    failure
}
