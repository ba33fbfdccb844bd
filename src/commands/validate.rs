//! `baton validate`: every mistake in a configuration, without starting anything.

use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use baton_contract::exit::Exit;
use baton_worker::config::{
    diagnostics,
    load::{LoadOptions, Source, load},
    model::{Address, Bootstrap},
};

use crate::{
    cli::{ReadArgs, ValidateArgs},
    failure::Failure,
    out, port_owner,
};

/// Validates the file that was named.
///
/// # Errors
/// When it cannot be read, is invalid, or a listener cannot be bound.
pub(crate) fn run(args: &ValidateArgs) -> Result<Exit, Failure> {
    let path = args.file.as_ref().or(args.config_path.as_ref());
    let path = path.map_or_else(|| Path::new("-"), PathBuf::as_path);
    let source = read(path)?;
    check(
        &source,
        &Wanted { json: args.json, bind: args.check_bind, read: &args.read, overlay: None },
    )
}

/// What `validate` and `run --mode validate` want.
pub(crate) struct Wanted<'a> {
    /// Diagnostics as JSON.
    pub json: bool,
    /// Try to bind.
    pub bind: bool,
    /// How the configuration is read.
    pub read: &'a ReadArgs,
    /// Text merged over the file.
    pub overlay: Option<&'a str>,
}

/// Reads a file, or standard input for `-`.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Source, Failure> {
    let mut bytes = Vec::new();
    let result = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    result.map_err(|error| {
        let text = format!("cannot read `{}`: {error}", path.display());
        Failure::new(Exit::Config, text).hint("name the configuration with `-c FILE`")
    })?;
    Ok(Source { path: path.to_owned(), bytes })
}

/// Shows all diagnostics, then the verdict.
///
/// # Errors
/// When a listener cannot be bound.
pub(crate) fn check(source: &Source, wanted: &Wanted<'_>) -> Result<Exit, Failure> {
    let options = LoadOptions {
        allow_unimplemented: wanted.read.allow_unimplemented,
        expand_env: wanted.read.expand_env,
        overlay: wanted.overlay.map(str::to_owned),
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
    let Some(bootstrap) = bootstrap else { return Ok(Exit::Config) };
    if wanted.bind {
        check_bind(&bootstrap)?;
    }
    if !wanted.json {
        let warnings = match list.len() {
            0 => String::new(),
            1 => " (1 warning)".to_owned(),
            count => format!(" ({count} warnings)"),
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
            if let Err(list) = load(&source, &LoadOptions::default()) {
                panic!("{}", diagnostics::render(&list));
            }
            count += 1;
        }
        assert!(count >= 5);
    }
}
