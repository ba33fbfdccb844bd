//! The base id, when a free one is to be found, and the file it is written to.

use std::{fs, iter};

use baton_contract::{control::path, shm::find};

use crate::{
    control_socket::{Home, HomeError},
    options::SupervisorOptions,
};

/// Most ids that are tried.
const MAX_TRIES: usize = 1024;
/// Distance between two ids that are tried: process numbers are smaller.
const STRIDE: u32 = 1 << 22;

/// Takes the directory of the control socket, under a base id that nobody has if that is wanted.
///
/// # Errors
/// When another supervisor has it, or it cannot be used.
pub(crate) fn lock(options: &mut SupervisorOptions) -> Result<Home, HomeError> {
    let around = path::Surroundings::of_this_process();
    let place = |options: &SupervisorOptions| {
        path::for_supervisor(options.control_socket.as_deref(), options.base_id, &around)
    };
    if options.dynamic_base_id {
        let first = std::process::id();
        let ids = iter::successors(Some(first), |id| Some(id.wrapping_add(STRIDE)));
        // Statistics that are there belong to a proxy, or to workers that lost their supervisor.
        for id in ids.take(MAX_TRIES).filter(|id| find(*id).is_empty()) {
            options.base_id = id;
            match Home::lock(place(options)) {
                Err(HomeError::Taken { .. }) if options.control_socket.is_none() => {}
                home => return home,
            }
        }
    }
    Home::lock(place(options))
}

/// Writes the base id where the user wants it.
pub(crate) fn tell(options: &SupervisorOptions) {
    let Some(path) = &options.base_id_path else { return };
    if let Err(error) = fs::write(path, options.base_id.to_string()) {
        tracing::error!(path = %path.display(), %error, "cannot write the base id");
    }
}
