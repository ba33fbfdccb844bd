//! How a program shows that it has understood the state it was asked about: it writes a token, which
//! only a reader of the state knows, behind the state in the same memory file.
//!
//! An exit code proves nothing: `/bin/true` has the best one there is.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
};

use serde::{Deserialize, Serialize};

/// What the program is asked to do with the state.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Nothing: it is executed in place of the older one and takes it.
    #[default]
    TakeOver,
    /// To look at it, as `adopt-check`.
    Look,
    /// To start as if it took it, and to stop right before.
    Rehearse,
}

/// A token nobody can guess by accident.
pub(crate) fn token() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}

/// A state with a question in it.
#[derive(Debug)]
pub(crate) struct Question {
    file: File,
    end: u64,
    answer: String,
}

impl Question {
    /// `file` holds the state, and the token in it.
    ///
    /// # Errors
    /// When the file cannot be measured.
    pub(crate) fn new(mut file: File, token: &str) -> io::Result<Self> {
        let end = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self { file, end, answer: answer_to(token) })
    }

    /// The file, for the program that is asked.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// The program wrote the token, exactly.
    pub(crate) fn is_answered(&self) -> bool {
        // A second opening of the same file has its own position, but the programs share this one.
        let mut file = &self.file;
        let mut found = Vec::new();
        let room = self.answer.len() as u64 + 1;
        let read = file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| file.take(room).read_to_end(&mut found));
        read.is_ok() && found == self.answer.as_bytes()
    }
}

fn answer_to(token: &str) -> String {
    format!("understood {token}\n")
}

/// The answer of a program that understood the state; to be given last.
#[derive(Debug)]
pub struct Proof {
    file: File,
    token: String,
}

impl Proof {
    pub(crate) fn new(file: OwnedFd, token: String) -> Self {
        Self { file: File::from(file), token }
    }

    /// Gives it. A supervisor of an older version asks for none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn give(mut self) -> io::Result<()> {
        if self.token.is_empty() {
            return Ok(());
        }
        self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(answer_to(&self.token).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    fn asked(token: &str) -> Question {
        let mut file = File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all(format!("{{\"token\":\"{token}\"}}").as_bytes()).unwrap();
        Question::new(file, token).unwrap()
    }

    fn answered(question: &Question, token: &str) {
        let copy = OwnedFd::from(question.file().try_clone().unwrap());
        Proof::new(copy, token.to_owned()).give().unwrap();
    }

    #[test]
    fn only_the_token_is_an_answer_and_only_behind_the_state() {
        let (one, other) = (token(), token());
        assert_ne!(one, other);
        let question = asked(&one);
        assert!(!question.is_answered(), "the state itself is none");
        answered(&question, &one);
        assert!(question.is_answered());
        let question = asked(&one);
        answered(&question, &other);
        assert!(!question.is_answered(), "the token of another question");
        let question = asked(&one);
        answered(&question, &one);
        answered(&question, &one);
        assert!(!question.is_answered(), "more than the token");
    }

    #[test]
    fn a_supervisor_that_asks_for_no_token_gets_none() {
        let question = asked("");
        answered(&question, "");
        assert_eq!(question.file().metadata().unwrap().len(), question.end);
    }
}
