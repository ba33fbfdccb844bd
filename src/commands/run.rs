//! `baton run`: the supervisor, in the foreground.

use std::{path::PathBuf, time::Duration};

use baton_contract::exit::Exit;
use baton_supervisor::{SupervisorError, SupervisorOptions};

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
        out::line(format_args!("{}", baton_contract::version::hot_restart_version()));
        return Ok(Exit::Ok);
    }
    if args.config_path.is_none() && args.config_yaml.is_none() {
        return Err(Failure::new(Exit::Usage, "no configuration was named").hint(
            "`baton run -c envoy.yaml` serves a file; `baton demo` shows a reload under load; \
             `baton help` lists everything",
        ));
    }
    if matches!(args.mode, Mode::Validate | Mode::InitOnly) {
        baton_supervisor::let_signals_through();
        return validate::check(args, &Wanted::default());
    }
    let checked = check(args)?;
    logging::start(&args.log_level, &args.component_log_level, &args.log)
        .map_err(|text| Failure::new(Exit::Usage, text))?;
    if !checked.of_envoy.is_empty() {
        tracing::info!("there are no such log components: {}", checked.of_envoy.join(" "));
    }
    if args.restart_epoch.is_some_and(|epoch| epoch > 0) {
        tracing::warn!("--restart-epoch is ignored: `baton reload` starts the next generation");
    }
    if args.disable_hot_restart {
        tracing::info!("--disable-hot-restart has no effect: no reload, no new generation");
    }
    let without_effect = args.envoy.given();
    if !without_effect.is_empty() {
        tracing::info!("these flags of Envoy have no effect: {}", without_effect.join(" "));
    }
    baton_supervisor::run(options(args, checked.for_worker)?).map_err(|error| {
        let failure = failure(&error);
        if args.log.path().is_some() {
            // It is in the log, and whoever started this reads it, too.
            tracing::error!("{failure}");
            logging::leave();
        }
        failure
    })
}

/// `--config-yaml` beside a file: it is merged over it, as Envoy does.
pub(super) fn overlay(args: &RunArgs) -> Option<&str> {
    args.config_path.as_ref().and(args.config_yaml.as_deref())
}

/// What a start looks at before it reads the configuration. Nothing is made.
///
/// # Errors
/// What is wrong with the command line.
fn check(args: &RunArgs) -> Result<logging::Checked, Failure> {
    let usage = |text| Failure::new(Exit::Usage, text);
    if overlay(args).is_some_and(|text| text.len() > OVERLAY_BYTES_MAX) {
        let text = format!("`--config-yaml` beside a file is limited to {OVERLAY_BYTES_MAX} bytes");
        return Err(usage(text).hint("put it into the file"));
    }
    if let Some(epoch) = args.restart_epoch.filter(|epoch| *epoch > 0 && args.use_dynamic_base_id) {
        let text =
            format!("`--restart-epoch {epoch}` and `--use-dynamic-base-id` exclude each other");
        return Err(
            usage(text).hint("leave one of them out; `baton reload` starts the next generation")
        );
    }
    logging::check(&args.log_level, &args.component_log_level, &args.log).map_err(usage)
}

/// The same and more, for those who do not start: what the supervisor needs, too.
///
/// # Errors
/// What a start would say.
pub(super) fn precheck(args: &RunArgs) -> Result<(), Failure> {
    let checked = check(args)?;
    baton_supervisor::check(&options(args, checked.for_worker)?).map_err(|error| failure(&error))
}

fn options(args: &RunArgs, log_level: String) -> Result<SupervisorOptions, Failure> {
    let flags = args.log.for_worker().map_err(|text| Failure::new(Exit::Usage, text))?;
    let mut options = options_of(args, log_level);
    options.worker_arguments.extend(flags);
    Ok(options)
}

fn options_of(args: &RunArgs, log_level: String) -> SupervisorOptions {
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
        log_level,
        service_node: args.service_node.clone(),
        service_cluster: args.service_cluster.clone(),
        service_zone: args.service_zone.clone(),
        admin_address_path: args.admin_address_path.clone(),
        dynamic_base_id: args.use_dynamic_base_id,
        base_id_path: args.base_id_path.clone().filter(|path| !path.as_os_str().is_empty()),
        reopen_log: logging::reopen,
        terminal: logging::terminal,
        end_with: args.end_with,
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
    if let SupervisorError::ControlSocket { .. } = error {
        return failure.hint(
            "`--control-socket PATH` puts it where this user may write; without it \
             `$RUNTIME_DIRECTORY`, `$XDG_RUNTIME_DIR` and /tmp are looked at, in this order",
        );
    }
    if let SupervisorError::ConfigFile { .. } = error {
        return failure.hint("name the file with `-c FILE`");
    }
    failure
}
