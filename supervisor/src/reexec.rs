//! The supervisor executes another program in place: the process, its children and its descriptors
//! stay, the code changes.
//!
//! What has to survive travels in one [`Baggage`]: parts of state as JSON, each under a name, and
//! descriptors, each under a name. It is written to a memory file whose number is in [`VARIABLE`].
//! **A store that wants to take something along** has two functions beside the ones listed in
//! `pack` and `unpack` in `upgrade.rs`: one that calls [`Baggage::put`] and [`Baggage::put_fd`], one
//! that calls [`Baggage::take`] and [`Baggage::take_fd`] under the same names. A part that is missing
//! is a default, a part nobody knows is ignored, and a descriptor nobody takes is closed; so the two
//! programs need not be of one version. What cannot be read at all is as if the supervisor had been
//! killed: its workers become orphans and come back.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
};

use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    signal::{SigSet, SigmaskHow, pthread_sigmask},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    proof::{self, Ask, Proof, Question},
    sys,
};

/// Number of the descriptor with the baggage, in the environment of the new program.
pub(crate) const VARIABLE: &str = "BATON_STATE";
/// Debug builds only: the state counts as unusable.
const TEST_UNUSABLE: &str = "BATON_TEST_STATE_UNUSABLE";
/// Version of the outer form. Parts have none: they are read leniently.
const FORMAT: u32 = 1;
/// Largest state, bytes.
const MAX_LEN: u64 = 256 * 1024 * 1024;
/// Variables that would be wrong in the new program: numbers it must not take as its own.
const STALE: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", VARIABLE];

/// Why the state cannot be taken along, or taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaggageError {
    #[error("cannot write the state down")]
    Write(#[source] io::Error),
    #[error("cannot read the state")]
    Read(#[source] io::Error),
    #[error("the state is malformed")]
    Malformed(#[source] serde_json::Error),
    #[error("the state has format {found}, this program knows {FORMAT}")]
    Format { found: u32 },
    #[error("the state belongs to process {0}")]
    Foreign(u32),
    #[error("part `{name}` of the state cannot be read")]
    Part {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("descriptor `{0}` is missing in the state")]
    MissingFd(String),
}

/// What is in the memory file.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Manifest {
    format: u32,
    pid: u32,
    #[serde(default)]
    parts: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    fds: BTreeMap<String, i32>,
    /// What the program is to do with it.
    #[serde(default)]
    ask: Ask,
    /// What a program that was asked writes behind this text.
    #[serde(default)]
    token: String,
}

/// State and descriptors on their way from one program to the next.
#[derive(Debug, Default)]
pub(crate) struct Baggage {
    parts: BTreeMap<String, serde_json::Value>,
    fds: BTreeMap<String, OwnedFd>,
}

impl Baggage {
    /// Adds a part.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub(crate) fn put(&mut self, name: &str, part: &impl Serialize) -> Result<(), BaggageError> {
        let value = serde_json::to_value(part)
            .map_err(|source| BaggageError::Part { name: name.to_owned(), source })?;
        self.parts.insert(name.to_owned(), value);
        Ok(())
    }

    /// Adds a copy of a descriptor.
    ///
    /// # Errors
    /// When the process has no room for a copy.
    pub(crate) fn put_fd(&mut self, name: String, fd: BorrowedFd<'_>) -> Result<(), BaggageError> {
        let copy = fd.try_clone_to_owned().map_err(BaggageError::Write)?;
        self.fds.insert(name, copy);
        Ok(())
    }

    /// Takes a part out; its default when it is not there.
    ///
    /// # Errors
    /// When it means something else to this program.
    pub(crate) fn take<T: DeserializeOwned + Default>(
        &mut self,
        name: &str,
    ) -> Result<T, BaggageError> {
        let Some(value) = self.parts.remove(name) else { return Ok(T::default()) };
        serde_json::from_value(value)
            .map_err(|source| BaggageError::Part { name: name.to_owned(), source })
    }

    /// Takes a descriptor out.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn take_fd(&mut self, name: &str) -> Result<OwnedFd, BaggageError> {
        self.fds.remove(name).ok_or_else(|| BaggageError::MissingFd(name.to_owned()))
    }

    /// The parts without descriptors, for a program that only shows that it could take them.
    ///
    /// # Errors
    /// When there is no memory or no descriptor.
    pub(crate) fn question(&self, ask: Ask) -> Result<Question, BaggageError> {
        let token = proof::token();
        let file = Self::write(&Manifest { ask, token: token.clone(), ..self.manifest() })?;
        Question::new(file, &token).map_err(BaggageError::Write)
    }

    fn manifest(&self) -> Manifest {
        let (format, pid) = (FORMAT, std::process::id());
        Manifest { format, pid, parts: self.parts.clone(), ..Manifest::default() }
    }

    fn write(manifest: &Manifest) -> Result<File, BaggageError> {
        let memory = memfd_create(c"baton-state", MFdFlags::MFD_CLOEXEC);
        let mut file = File::from(memory.map_err(|errno| BaggageError::Write(errno.into()))?);
        let text = serde_json::to_vec(manifest).map_err(BaggageError::Malformed)?;
        file.write_all(&text).map_err(BaggageError::Write)?;
        io::Seek::rewind(&mut file).map_err(BaggageError::Write)?;
        Ok(file)
    }

    /// Executes `program` with the arguments of this process in its place. Returns only when that
    /// failed; then nothing has changed. Signals should be blocked: the handlers go with the old
    /// program.
    pub(crate) fn execute(self, program: &Path) -> BaggageError {
        match self.try_execute(program) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_execute(self, program: &Path) -> Result<std::convert::Infallible, BaggageError> {
        let fds = self.fds.iter().map(|(name, fd)| (name.clone(), sys::number(fd.as_fd())));
        let manifest = Manifest { fds: fds.collect(), ..self.manifest() };
        let file = Self::write(&manifest)?;
        let text = |bytes: Vec<u8>| {
            CString::new(bytes).map_err(|error| BaggageError::Write(io::Error::other(error)))
        };
        let path = text(program.as_os_str().as_bytes().to_vec())?;
        let mut arguments = vec![path.clone()];
        for argument in std::env::args_os().skip(1) {
            arguments.push(text(argument.into_vec())?);
        }
        let number = sys::number(file.as_fd());
        let mut environment = vec![text(format!("{VARIABLE}={number}").into_bytes())?];
        for (name, value) in std::env::vars_os() {
            if STALE.iter().all(|stale| name != *stale) {
                environment.push(text(assignment(name, value))?);
            }
        }
        // The copies live in this value, so nothing else has to be undone when it fails.
        for fd in self.fds.values().map(AsFd::as_fd).chain([file.as_fd()]) {
            sys::keep_over_exec(fd).map_err(BaggageError::Write)?;
        }
        let Err(errno) = nix::unistd::execve(&path, &arguments, &environment);
        Err(BaggageError::Write(io::Error::from(errno)))
    }

    /// What an older program of this process left, with its descriptors.
    fn at(number: &str) -> Result<Left, BaggageError> {
        let missing = || BaggageError::Read(io::ErrorKind::InvalidInput.into());
        let number = number.parse().map_err(|_| missing())?;
        let file = sys::inherited(number).map_err(BaggageError::Read)?;
        let manifest = read(&file)?;
        if manifest.ask == Ask::Rehearse {
            let (baggage, proof) = Self::asked(file, manifest)?;
            return Ok(Left::Rehearsal(baggage, proof));
        }
        if cfg!(debug_assertions) && std::env::var_os(TEST_UNUSABLE).is_some() {
            return Err(missing());
        }
        if manifest.pid != std::process::id() {
            return Err(BaggageError::Foreign(manifest.pid));
        }
        let mut baggage = Self { parts: manifest.parts, fds: BTreeMap::new() };
        for (name, number) in manifest.fds {
            match sys::inherited(number) {
                Ok(fd) => drop(baggage.fds.insert(name, fd)),
                Err(error) => tracing::error!(name, number, %error, "a descriptor did not come"),
            }
        }
        if manifest.format != FORMAT {
            return Err(BaggageError::Format { found: manifest.format });
        }
        Ok(Left::Usable(baggage))
    }

    /// What is in the file of a [`Question`], and the way to answer it.
    ///
    /// # Errors
    /// When this program does not understand it.
    pub(crate) fn from_file(file: OwnedFd) -> Result<(Self, Proof), BaggageError> {
        let manifest = read(&file)?;
        Self::asked(file, manifest)
    }

    fn asked(file: OwnedFd, manifest: Manifest) -> Result<(Self, Proof), BaggageError> {
        if manifest.format != FORMAT {
            return Err(BaggageError::Format { found: manifest.format });
        }
        let baggage = Self { parts: manifest.parts, fds: BTreeMap::new() };
        Ok((baggage, Proof::new(file, manifest.token)))
    }
}

fn assignment(name: OsString, value: OsString) -> Vec<u8> {
    [name.into_vec(), b"=".to_vec(), value.into_vec()].concat()
}

fn read(file: &OwnedFd) -> Result<Manifest, BaggageError> {
    let mut file = File::from(file.try_clone().map_err(BaggageError::Read)?);
    io::Seek::rewind(&mut file).map_err(BaggageError::Read)?;
    let mut bytes = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut bytes).map_err(BaggageError::Read)?;
    serde_json::from_slice(&bytes).map_err(BaggageError::Malformed)
}

/// What an older program of this process left.
#[derive(Debug)]
pub(crate) enum Left {
    /// This is a start like any other.
    Nothing,
    /// Everything.
    Usable(Baggage),
    /// Something that cannot be read. All its descriptors are closed.
    Unusable,
    /// Nothing is left: this program is to show that it would get this far.
    Rehearsal(Baggage, Proof),
}

/// Looks for what an older program left. To be called before this process opens anything.
pub(crate) fn of_this_process() -> Left {
    let Ok(number) = std::env::var(VARIABLE) else { return Left::Nothing };
    match Baggage::at(&number) {
        Ok(left) => left,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "the state cannot be read, workers have to come back");
            // A lock among them would keep this process itself out.
            if let Err(error) = sys::close_inherited() {
                tracing::error!(%error, "descriptors of the older program stay open");
            }
            Left::Unusable
        }
    }
}

/// All signals are blocked as long as this lives.
#[derive(Debug)]
pub(crate) struct Blocked {
    before: SigSet,
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set_mask(&self.before);
    }
}

/// Blocks all signals.
pub(crate) fn block_signals() -> Blocked {
    let mut before = SigSet::empty();
    let all = SigSet::all();
    if let Err(errno) = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before)) {
        tracing::error!(%errno, "signals cannot be blocked");
    }
    Blocked { before }
}

fn set_mask(mask: &SigSet) {
    if let Err(errno) = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(mask), None) {
        tracing::error!(%errno, "signals stay blocked");
    }
}
