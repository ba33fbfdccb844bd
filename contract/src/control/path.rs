//! Where the control socket of a supervisor is.

use std::path::{Path, PathBuf};

/// Name of the socket in its directory.
pub const SOCKET_NAME: &str = "control.sock";

/// What the rule looks at, read from the process once.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `$RUNTIME_DIRECTORY`, set by systemd; the first of several.
    pub runtime_directory: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// Effective user.
    pub uid: u32,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let directory = |name: &str| {
            let value = std::env::var(name).ok()?;
            let first = value.split(':').next().unwrap_or_default();
            (!first.is_empty()).then(|| PathBuf::from(first))
        };
        Self {
            runtime_directory: directory("RUNTIME_DIRECTORY"),
            xdg_runtime_dir: directory("XDG_RUNTIME_DIR"),
            uid: nix::unistd::geteuid().as_raw(),
        }
    }
}

/// Longest path of a Unix socket, in bytes: `sun_path` without the zero at its end, see unix(7).
pub const SOCKET_PATH_MAX: usize = 107;

/// The socket a supervisor opens: the one asked for, or the first place that fits.
///
/// `$RUNTIME_DIRECTORY/baton-ID/control.sock`, else `$XDG_RUNTIME_DIR/baton-ID/control.sock`, else
/// `/tmp/baton-UID-ID/control.sock`, where ID is the `--base-id`.
pub fn for_supervisor(explicit: Option<&Path>, base_id: u32, around: &Surroundings) -> PathBuf {
    explicit
        .map(Path::to_owned)
        .or_else(|| candidates(base_id, around).into_iter().next())
        .unwrap_or_else(|| PathBuf::from(SOCKET_NAME))
}

/// The socket a command talks to: the one asked for, or the first place where one is.
///
/// A command may run in a shell without the variables the supervisor was started with, so it looks
/// in every place the supervisor could have chosen.
pub fn for_client(explicit: Option<&Path>, base_id: u32, around: &Surroundings) -> PathBuf {
    if let Some(path) = explicit {
        return path.to_owned();
    }
    let mut places = candidates(base_id, around);
    places.push(PathBuf::from("/run/baton").join(format!("baton-{base_id}")).join(SOCKET_NAME));
    places.push(
        PathBuf::from("/run/user")
            .join(around.uid.to_string())
            .join(format!("baton-{base_id}"))
            .join(SOCKET_NAME),
    );
    let found = places.iter().find(|place| place.exists()).or_else(|| places.first());
    found.cloned().unwrap_or_else(|| PathBuf::from(SOCKET_NAME))
}

/// Places in the order of preference.
fn candidates(base_id: u32, around: &Surroundings) -> Vec<PathBuf> {
    let own = format!("baton-{base_id}");
    let mut places: Vec<PathBuf> = [&around.runtime_directory, &around.xdg_runtime_dir]
        .into_iter()
        .flatten()
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(&own).join(SOCKET_NAME))
        .collect();
    let shared = format!("/tmp/baton-{}-{base_id}", around.uid);
    places.push(PathBuf::from(shared).join(SOCKET_NAME));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_fits_is_taken() {
        let mut around = Surroundings { uid: 7, ..Surroundings::default() };
        let check = |around: &Surroundings, explicit: Option<&str>, expected: &str| {
            let path = for_supervisor(explicit.map(Path::new), 3, around);
            assert_eq!(path, PathBuf::from(expected));
        };
        check(&around, None, "/tmp/baton-7-3/control.sock");
        around.xdg_runtime_dir = Some("/run/user/7".into());
        check(&around, None, "/run/user/7/baton-3/control.sock");
        around.runtime_directory = Some("/run/baton".into());
        check(&around, None, "/run/baton/baton-3/control.sock");
        check(&around, Some("/x/y.sock"), "/x/y.sock");
    }
}
