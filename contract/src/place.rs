//! Whether a file could be written, found out without making it and without opening it for long: a check
//! of what a start needs leaves no trace.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileTypeExt,
    path::Path,
};

use nix::unistd::{AccessFlags, eaccess};

/// Why nothing can be written to a file of this name, which may not be there yet.
pub fn why_not_written(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Some("it is a directory".to_owned()),
        Ok(metadata) if metadata.is_file() => {
            let opened = OpenOptions::new().append(true).open(path);
            opened.err().map(|error| error.to_string())
        }
        Ok(metadata) if metadata.file_type().is_socket() => Some("it is a socket".to_owned()),
        // Opening a pipe would wait for a reader, and may end what its reader does.
        Ok(_) => eaccess(path, AccessFlags::W_OK).err().map(|error| error.desc().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => why_not_made(path),
        Err(error) => Some(error.to_string()),
    }
}

/// Why no file can be made under this path.
pub fn why_not_made(path: &Path) -> Option<String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    if !directory.is_dir() {
        return Some(format!("there is no directory `{}`", directory.display()));
    }
    let refused = eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK).err();
    refused.map(|error| format!("the directory `{}`: {}", directory.display(), error.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_only_in_a_directory_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(why_not_made(&directory.path().join("log")), None);
        assert_eq!(why_not_made(Path::new("log")), None);
        let problem = why_not_made(&directory.path().join("missing/log")).unwrap();
        assert!(problem.starts_with("there is no directory"), "{problem}");
        // Nobody may make files there, root neither.
        let problem = why_not_made(Path::new("/proc/log"));
        let is_root = nix::unistd::geteuid().is_root();
        assert!(is_root || problem.unwrap().contains("ermission denied"));
    }

    #[test]
    fn a_check_makes_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert_eq!(why_not_written(&path), None);
        assert!(!path.exists());
        assert_eq!(why_not_written(directory.path()).unwrap(), "it is a directory");
        assert_eq!(why_not_written(Path::new("/dev/null")), None);
        assert!(why_not_written(&path.join("deeper")).unwrap().contains("no directory"));
    }
}
