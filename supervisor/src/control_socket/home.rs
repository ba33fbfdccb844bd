//! The directory of the control socket, and the lock that keeps a second supervisor out.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use baton_contract::{control::path::SOCKET_PATH_MAX, place};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};

/// Why the directory or the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    #[error("another supervisor has the lock `{}`", lock.display())]
    Taken { lock: PathBuf, pid: Option<u32> },
    #[error("`{}` is too long for a socket", socket.display())]
    TooLong { socket: PathBuf },
    #[error("cannot use `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A directory that is ours as long as this lives.
#[derive(Debug)]
pub(crate) struct Home {
    socket: PathBuf,
    /// Released when the process ends, in whatever way.
    lock: Flock<File>,
}

impl Home {
    /// Makes the directory of the socket if needed, and takes the lock beside the socket.
    ///
    /// # Errors
    /// When another process has the lock, or the directory belongs to somebody else, or no socket
    /// can have this path.
    pub(crate) fn lock(socket: PathBuf) -> Result<Self, HomeError> {
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(HomeError::TooLong { socket });
        }
        let failed = |path: &Path, source| HomeError::Io { path: path.to_owned(), source };
        if let Some(directory) = socket.parent().filter(|path| !path.as_os_str().is_empty()) {
            prepare(directory).map_err(|source| failed(directory, source))?;
        }
        let path = socket.with_extension("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|source| failed(&path, source))?;
        let mut text = String::new();
        // The number in it is only for people.
        let known = file.read_to_string(&mut text).is_ok();
        let mut lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
                if errno == Errno::EWOULDBLOCK {
                    let pid = text.trim().parse().ok().filter(|_| known);
                    HomeError::Taken { lock: path.clone(), pid }
                } else {
                    failed(&path, errno.into())
                }
            })?;
        write_pid(&mut lock).map_err(|source| failed(&path, source))?;
        Ok(Self { socket, lock })
    }

    /// Whether [`lock`](Self::lock) could make what it needs; that another process has the lock does not
    /// matter. Nothing is made.
    ///
    /// # Errors
    /// As those of [`lock`](Self::lock).
    pub(crate) fn check(socket: &Path) -> Result<(), HomeError> {
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(HomeError::TooLong { socket: socket.to_owned() });
        }
        let failed = |path: &Path, source| HomeError::Io { path: path.to_owned(), source };
        let directory = socket.parent().filter(|path| !path.as_os_str().is_empty());
        // The nearest one that is there; in it the others would be made.
        let there = directory.into_iter().flat_map(Path::ancestors).find(|path| path.exists());
        if let (Some(directory), Some(there)) = (directory, there) {
            if there == directory {
                is_safe(directory).map_err(|source| failed(directory, source))?;
            } else if let Some(why) = place::why_not_made(&there.join("x")) {
                return Err(failed(directory, io::Error::other(why)));
            }
        }
        for path in [socket.with_extension("lock"), socket.to_owned()] {
            // A socket of ours is removed and made anew.
            let stale = path == socket && fs::symlink_metadata(&path).is_ok_and(|it| !it.is_dir());
            if directory.is_none_or(Path::exists)
                && !stale
                && let Some(why) = place::why_not_written(&path)
            {
                return Err(failed(&path, io::Error::other(why)));
            }
        }
        Ok(())
    }

    /// The lock, for a program that is executed in place of this one.
    pub(super) fn lock_file(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The directory of a program that was executed before this one, with its lock.
    pub(super) fn restore(socket: PathBuf, lock: OwnedFd) -> io::Result<Self> {
        // It is the same open file, so this changes nothing unless the lock was lost.
        let lock = Flock::lock(File::from(lock), FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| errno)?;
        Ok(Self { socket, lock })
    }

    /// Path of the socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Somebody removed the file of the socket, so that no command finds it.
    pub(super) fn is_lost(&self) -> bool {
        !self.socket.exists()
    }

    /// Makes the directory and the lock's file again when somebody removed them.
    ///
    /// # Errors
    /// When that is not possible, or another supervisor has a lock there now.
    pub(super) fn restore_files(&mut self) -> Result<(), HomeError> {
        let path = self.socket.with_extension("lock");
        if fs::symlink_metadata(&path).is_ok() {
            return Ok(());
        }
        *self = Self::lock(self.socket.clone())?;
        Ok(())
    }

    /// Opens the socket. A stale one is removed, which the lock makes safe.
    pub(super) fn bind(&self) -> Result<UnixListener, HomeError> {
        let failed = |source| HomeError::Io { path: self.socket.clone(), source };
        if let Err(error) = fs::remove_file(&self.socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let listener = UnixListener::bind(&self.socket).map_err(failed)?;
        fs::set_permissions(&self.socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// Removes the socket, so that commands see at once that nobody is there.
    pub(super) fn clean(&self) {
        if let Err(error) = fs::remove_file(&self.socket) {
            tracing::debug!(%error, "cannot remove the control socket");
        }
    }
}

/// Makes the directory for its owner alone, or checks that an existing one is safe.
fn prepare(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    is_safe(directory)
}

/// Whether nobody else can put anything into the directory.
fn is_safe(directory: &Path) -> io::Result<()> {
    let metadata = fs::metadata(directory)?;
    let sticky = metadata.mode() & 0o1000 != 0;
    let theirs = metadata.uid() != 0 && metadata.uid() != geteuid().as_raw();
    let open = metadata.mode() & 0o022 != 0 && !sticky;
    if theirs || open {
        let text = "the directory belongs to another user, or others may write to it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

fn write_pid(lock: &mut Flock<File>) -> io::Result<()> {
    lock.set_len(0)?;
    io::Seek::rewind(&mut **lock)?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_supervisor_is_kept_out_and_told_who_is_there() {
        let directory = tempfile::tempdir().expect("directory");
        let socket = directory.path().join("own/control.sock");
        let home = Home::lock(socket.clone()).expect("first");
        let mode = fs::metadata(directory.path().join("own")).expect("metadata").mode();
        assert_eq!(mode & 0o777, 0o700);
        match Home::lock(socket.clone()) {
            Err(HomeError::Taken { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("unexpected {other:?}"),
        }
        drop(home);
        Home::lock(socket).expect("free again");
    }

    #[test]
    fn a_path_no_socket_can_have_is_refused_before_anything_is_made() {
        let directory = tempfile::tempdir().expect("directory");
        let inner = directory.path().join("y".repeat(SOCKET_PATH_MAX));
        assert!(matches!(Home::lock(inner.join("s")), Err(HomeError::TooLong { .. })));
        assert!(matches!(Home::check(&inner.join("s")), Err(HomeError::TooLong { .. })));
        assert!(!inner.exists());
    }

    #[test]
    fn a_directory_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(matches!(Home::lock(directory.path().join("s")), Err(HomeError::Io { .. })));
        assert!(matches!(Home::check(&directory.path().join("s")), Err(HomeError::Io { .. })));
    }

    #[test]
    fn a_check_says_what_the_lock_would_say_and_makes_nothing() {
        let directory = tempfile::tempdir().expect("directory");
        let socket = directory.path().join("own/deeper/control.sock");
        Home::check(&socket).expect("it can be made");
        assert!(!directory.path().join("own").exists());
        let file = directory.path().join("file");
        fs::write(&file, "").expect("a file");
        assert!(matches!(Home::check(&file.join("s")), Err(HomeError::Io { .. })));
        assert!(matches!(Home::lock(file.join("s")), Err(HomeError::Io { .. })));
        let _home = Home::lock(socket.clone()).expect("made");
        Home::check(&socket).expect("somebody else runs, which is no obstacle");
    }
}
