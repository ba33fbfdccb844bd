//! What a start needs of the machine and the command line, found out before anything is done, by a start
//! and by whoever only validates. Nothing is made.

use std::path::Path;

use baton_contract::{control::path, place};

use crate::{
    SupervisorError, SupervisorOptions,
    control_socket::{Home, HomeError},
};

/// Most bytes that the flags with names and paths may have together. Settings travel to a worker in one
/// frame of 64 KiB, beside the text of `--config-yaml`.
pub(crate) const WORDS_BYTES_MAX: usize = 8 * 1024;

/// Whether a supervisor with these options could start as far as its own needs go. Another one that
/// runs under the same base id is no obstacle.
///
/// # Errors
/// What [`run`](crate::run()) would say.
pub fn check(options: &SupervisorOptions) -> Result<(), SupervisorError> {
    flags(options)?;
    if options.dynamic_base_id && options.control_socket.is_none() {
        // Its number, and with it the place, is found at the start.
        return Ok(());
    }
    let around = path::Surroundings::of_this_process();
    let socket = path::for_supervisor(options.control_socket.as_deref(), options.base_id, &around);
    Home::check(&socket).map_err(|error| home_error(error, options.base_id))
}

/// What the flags say, without the control socket.
pub(crate) fn flags(options: &SupervisorOptions) -> Result<(), SupervisorError> {
    let words = [
        &options.service_node,
        &options.service_cluster,
        &options.service_zone,
        &options.admin_address_path,
        &options.log_level,
    ];
    // As it is written in a message, where a control character has six bytes.
    let length =
        |text: &&String| text.len() + 5 * text.bytes().filter(u8::is_ascii_control).count();
    if words.iter().map(length).sum::<usize>() > WORDS_BYTES_MAX {
        return Err(SupervisorError::Words);
    }
    let writes = |flag, path: &Path| match place::why_not_written(path) {
        Some(why) => Err(SupervisorError::Unwritable { flag, path: path.to_owned(), why }),
        None => Ok(()),
    };
    if let Some(path) = options.base_id_path.as_deref() {
        writes("--base-id-path", path)?;
    }
    if !options.admin_address_path.is_empty() {
        writes("--admin-address-path", options.admin_address_path.as_ref())?;
    }
    Ok(())
}

pub(crate) fn home_error(error: HomeError, base_id: u32) -> SupervisorError {
    match error {
        HomeError::Taken { lock, pid } => SupervisorError::AnotherInstance { base_id, lock, pid },
        HomeError::TooLong { socket } => SupervisorError::ControlSocketPath { path: socket },
        HomeError::Io { path, source } => SupervisorError::ControlSocket { path, source },
    }
}
