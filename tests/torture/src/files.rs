//! A file of resources, replaced in each of the ways that its users have.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// How the file gets its new content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Another file is written and renamed.
    Rename,
    /// The file is emptied and written, as editors and scripts do.
    InPlace,
    /// A symbolic link to its directory is replaced, as Kubernetes does for a `ConfigMap`.
    Link,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rename, Self::InPlace, Self::Link];

    /// The way of the `number`th change of a file. Two changes by link follow each other: the first puts
    /// the link in place of a file, the second replaces only the directory behind it. What is written in
    /// place is a file, never the target of a link.
    pub(crate) fn of_change(number: u64) -> Self {
        match number % 4 {
            0 => Self::Rename,
            1 => Self::InPlace,
            _ => Self::Link,
        }
    }
}

/// One file in a directory of its own.
#[derive(Debug)]
pub struct ResourceFile {
    directory: PathBuf,
    /// Directories behind the link so far.
    swaps: AtomicU32,
}

impl ResourceFile {
    const NAME: &str = "resources.yaml";
    const LINK: &str = "..data";

    /// Makes the directory, not the file.
    ///
    /// # Errors
    ///
    /// When the directory can not be made.
    pub fn new(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { directory, swaps: AtomicU32::new(0) })
    }

    /// The file, which may not be there yet.
    pub fn path(&self) -> PathBuf {
        self.directory.join(Self::NAME)
    }

    /// The directory that is to be watched.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The `ConfigSource` that reads this file, as YAML in one line.
    pub fn source(&self) -> String {
        format!(
            "{{ path_config_source: {{ path: \"{}\", watched_directory: {{ path: \"{}\" }} }}, \
             resource_api_version: V3 }}",
            self.path().display(),
            self.directory.display()
        )
    }

    /// Gives the file this content.
    ///
    /// # Errors
    ///
    /// When a file, a directory or a link can not be made.
    pub fn put(&self, text: &str, way: Way) -> io::Result<()> {
        match way {
            Way::Rename => {
                let new = self.directory.join("new");
                fs::write(&new, text)?;
                fs::rename(new, self.path())
            }
            Way::InPlace => fs::write(self.path(), text),
            Way::Link => self.swap(text),
        }
    }

    fn swap(&self, text: &str) -> io::Result<()> {
        let number = self.swaps.fetch_add(1, Ordering::Relaxed) + 1;
        let real = |number: u32| format!("..{number}");
        fs::create_dir(self.directory.join(real(number)))?;
        fs::write(self.directory.join(real(number)).join(Self::NAME), text)?;
        self.link(&real(number), Self::LINK)?;
        if !self.path().is_symlink() {
            self.link(&format!("{}/{}", Self::LINK, Self::NAME), Self::NAME)?;
        }
        if number == 1 {
            return Ok(());
        }
        fs::remove_dir_all(self.directory.join(real(number - 1)))
    }

    /// A link that takes the place of what has its name.
    fn link(&self, target: &str, name: &str) -> io::Result<()> {
        let new = self.directory.join("..new");
        symlink(target, &new)?;
        fs::rename(new, self.directory.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_follows_each_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = ResourceFile::new(directory.path().join("kind")).expect("a file");
        for (number, first) in Way::ALL.into_iter().enumerate() {
            for (again, second) in Way::ALL.into_iter().enumerate() {
                for (text, way) in
                    [(format!("a{number}{again}"), first), (format!("b{again}"), second)]
                {
                    file.put(&text, way).expect("put");
                    assert_eq!(fs::read_to_string(file.path()).expect("read"), text);
                }
            }
        }
        assert!(file.source().contains("/kind/resources.yaml"));
    }
}
