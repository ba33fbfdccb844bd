//! `baton validate`: every mistake in a configuration, without starting anything.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use baton_contract::{exit::Exit, words::counted};
use baton_supervisor::config_file::{self, ConfigFileError};
use baton_worker::{
    config::{
        diagnostics,
        load::{LoadOptions, Source, load},
        model::{Address, Bootstrap},
    },
    extension,
};

use super::run;
use crate::{
    cli::{RunArgs, ValidateArgs},
    failure::Failure,
    out, port_owner,
};

/// Validates what was named.
///
/// # Errors
/// When it cannot be read, is invalid, or a listener cannot be bound.
pub(crate) fn run(args: &ValidateArgs) -> Result<Exit, Failure> {
    let mut run = args.run.clone();
    if args.file.is_some() {
        run.config_path.clone_from(&args.file);
    }
    check(&run, &Wanted { json: args.json, bind: args.check_bind })
}

/// What `validate` can do more than `run --mode validate`.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Diagnostics as JSON.
    pub json: bool,
    /// Try to bind.
    pub bind: bool,
}

/// Reads a file, or standard input for `-`, with the guards that a start and a reload have.
///
/// # Errors
/// When it cannot be read, is no file, or is too large.
pub(crate) fn read(path: &Path) -> Result<Source, Failure> {
    let bytes = if path == Path::new("-") {
        config_file::read_from(std::io::stdin(), path)
    } else if is_descriptor(path) {
        // The shell opened it, so it has a writer, and its end will come.
        std::fs::File::open(path)
            .map_err(|reason| ConfigFileError::Read { path: path.to_owned(), reason })
            .and_then(|file| config_file::read_from(file, path))
    } else {
        config_file::read(path)
    };
    let bytes = bytes.map_err(|error| {
        let failure = Failure::of(Exit::Config, &error);
        match error {
            ConfigFileError::Read { .. } => failure.hint("name the configuration with `-c FILE`"),
            ConfigFileError::Kind { .. } => failure.hint("`-` reads standard input"),
            ConfigFileError::TooLong { .. } => failure.hint("is it a configuration at all?"),
        }
    })?;
    Ok(Source { path: path.to_owned(), bytes })
}

/// True for a name of a descriptor that this process was started with.
fn is_descriptor(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
}

/// The configuration that a start with these flags would read first, without what is merged over it.
pub(super) fn source(args: &RunArgs) -> Result<Source, Failure> {
    match (&args.config_path, &args.config_yaml) {
        (Some(path), _) => read(path),
        (None, text) => Ok(Source {
            path: PathBuf::from("--config-yaml"),
            bytes: text.clone().unwrap_or_default().into_bytes(),
        }),
    }
}

/// Does what a start with these flags does before anything is made.
///
/// # Errors
/// When a flag cannot be used, or a listener cannot be bound.
pub(crate) fn check(args: &RunArgs, wanted: &Wanted) -> Result<Exit, Failure> {
    // Mistakes of the configuration are shown, too, when there is one in the flags.
    let flags = run::precheck(args);
    let source = match source(args) {
        Ok(source) => source,
        Err(failure) => return flags.and(Err(failure)),
    };
    configuration(&source, args, wanted, flags)
}

/// Shows all diagnostics, then the verdict, unless something else was found wrong.
///
/// # Errors
/// When a listener cannot be bound.
pub(super) fn configuration(
    source: &Source,
    args: &RunArgs,
    wanted: &Wanted,
    found: Result<(), Failure>,
) -> Result<Exit, Failure> {
    let options = LoadOptions {
        allow_unimplemented: args.read.allow_unimplemented,
        expand_env: args.read.expand_env,
        overlay: run::overlay(args).filter(|text| !text.is_empty()).map(str::to_owned),
        extensions: extension::ALL,
    };
    let (list, bootstrap) = match load(source, &options) {
        Ok(loaded) => (loaded.warnings, Some(loaded.bootstrap)),
        Err(list) => (list, None),
    };
    if wanted.json {
        out::line(format_args!("{:#}", diagnostics::to_json(&list)));
    } else if !list.is_empty() {
        out::error_line(format_args!("{}", diagnostics::render(&list).trim_end()));
    }
    found?;
    let Some(bootstrap) = bootstrap else { return Ok(Exit::Config) };
    if wanted.bind {
        check_bind(&bootstrap)?;
    }
    if !wanted.json {
        let warnings = match list.len() {
            0 => String::new(),
            count => format!(" ({})", counted(count, "warning")),
        };
        out::line(format_args!("configuration '{}' OK{warnings}", source.path.display()));
    }
    Ok(Exit::Ok)
}

/// Binds each TCP listener and lets go of it. A proxy of the same user that runs is no obstacle,
/// as it is none for a reload.
fn check_bind(bootstrap: &Bootstrap) -> Result<(), Failure> {
    let listeners = bootstrap.listeners.iter().flat_map(|listener| &listener.addresses);
    let admin = bootstrap.admin.iter().map(|admin| &admin.address);
    for address in listeners.chain(admin) {
        if let Address::Ip(address) = address {
            bind(*address)?;
        }
    }
    Ok(())
}

fn bind(address: SocketAddr) -> Result<(), Failure> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None);
    let bound = socket.and_then(|socket| {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        drop(TcpListener::from(socket));
        Ok(())
    });
    bound.map_err(|error| bind_failure(address, &error))
}

/// Why an address cannot be bound, and who is in the way.
pub(crate) fn bind_failure(address: SocketAddr, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Exit::Refused, format!("cannot listen on {address}: {error}"));
    if error.kind() == ErrorKind::AddrInUse {
        return match port_owner::of(address) {
            Some(owner) => failure.hint(format!("{owner} listens on port {}", address.port())),
            None => failure.hint(format!("`ss -ltnp sport = :{}` shows who", address.port())),
        };
    }
    if error.kind() == ErrorKind::PermissionDenied && address.port() < 1024 {
        return failure.hint(
            "ports below 1024 need a privilege: `setcap cap_net_bind_service=+ep $(which baton)`, \
             or AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit",
        );
    }
    if error.kind() == ErrorKind::AddrNotAvailable {
        return failure.hint("no interface has this address; `ip addr` shows those there are");
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_names_its_owner() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let failure = bind(taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        let hint = failure.hint.unwrap();
        assert!(hint.starts_with(&format!("process {}", std::process::id())), "{hint}");
    }

    #[test]
    fn every_example_is_a_valid_configuration() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let source = read(&entry.unwrap().path()).unwrap();
            if let Err(list) = load(&source, &extension::load_options()) {
                panic!("{}", diagnostics::render(&list));
            }
            count += 1;
        }
        assert!(count >= 5);
    }
}
