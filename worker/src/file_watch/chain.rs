//! Everything that a path leads over: directories, symbolic links, the file. What is missing ends it.
//! Asks the file system, changes nothing.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use nix::errno::Errno;

use super::kernel::Wanted;

/// As many symbolic links as the kernel follows.
const LINKS_MAX: usize = 40;

/// The way to a file.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Chain {
    pub(super) links: Vec<Link>,
    /// Why the way could not be seen to its end, other than that it ends.
    pub(super) obstacle: Option<Errno>,
}

/// A place on the way, without symbolic links in its path, and what matters there.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Link {
    pub(super) place: PathBuf,
    /// Device and inode, so that another thing at the same place is not taken for it.
    identity: (u64, u64),
    is_directory: bool,
    pub(super) part: Part,
}

/// What of a place matters to a file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Part {
    /// The file or the directory itself.
    Itself,
    /// What has this name in the directory: a symbolic link, the file, or what is not there yet.
    Name(OsString),
    /// All that is moved into the directory.
    Arrivals,
}

impl Link {
    pub(super) fn wanted(&self) -> Wanted {
        match self.part {
            Part::Itself if self.is_directory => Wanted::Directory,
            Part::Itself => Wanted::File,
            Part::Name(_) | Part::Arrivals => Wanted::Entries,
        }
    }
}

/// A place on the way that is there.
struct Place {
    path: PathBuf,
    found: fs::Metadata,
}

impl Place {
    fn link(&self, part: Part) -> Link {
        Link {
            place: self.path.clone(),
            identity: (self.found.dev(), self.found.ino()),
            is_directory: self.found.is_dir(),
            part,
        }
    }
}

impl Chain {
    /// The way to a file, by its absolute path.
    pub(super) fn of_file(path: &Path) -> Self {
        let mut chain = Self::default();
        chain.obstacle = chain.walk(path).err();
        chain
    }

    /// Adds the way to a directory and all that is moved into it.
    pub(super) fn add_directory(&mut self, path: &Path) {
        match self.walk(path) {
            Ok(Some(place)) if place.found.is_dir() => self.links.push(place.link(Part::Arrivals)),
            Ok(_) => {}
            Err(error) => self.obstacle = self.obstacle.or(Some(error)),
        }
    }

    /// Follows a path as far as it leads. Where to, when that is its end.
    fn walk(&mut self, path: &Path) -> Result<Option<Place>, Errno> {
        let mut rest = VecDeque::new();
        let mut here = self.begin(path, &mut rest)?;
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                // The root is its own parent.
                let parent = here.path.parent().unwrap_or(&here.path).to_path_buf();
                here = place(parent)?;
                continue;
            }
            let next = match place(here.path.join(&name)) {
                Ok(next) => next,
                Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    self.links.push(here.link(Part::Name(name)));
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            if next.found.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP);
                }
                self.links.push(here.link(Part::Name(name)));
                let target = fs::read_link(&next.path).map_err(|error| errno(&error))?;
                if target.is_absolute() {
                    here = self.begin(&target, &mut rest)?;
                } else {
                    prepend(&target, &mut rest);
                }
                continue;
            }
            if !next.found.is_dir() {
                self.links.push(here.link(Part::Name(name)));
            }
            self.links.push(next.link(Part::Itself));
            here = next;
            if !here.found.is_dir() {
                // A path that goes on leads nowhere.
                return Ok(rest.is_empty().then_some(here));
            }
        }
        Ok(Some(here))
    }

    /// Begins an absolute path at the root.
    fn begin(&mut self, path: &Path, rest: &mut VecDeque<OsString>) -> Result<Place, Errno> {
        prepend(path, rest);
        let root = place(PathBuf::from("/"))?;
        self.links.push(root.link(Part::Itself));
        Ok(root)
    }
}

/// Puts the names of a path before what is left to walk.
fn prepend(path: &Path, rest: &mut VecDeque<OsString>) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn place(path: PathBuf) -> Result<Place, Errno> {
    match fs::symlink_metadata(&path) {
        Ok(found) => Ok(Place { path, found }),
        Err(error) => Err(errno(&error)),
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
