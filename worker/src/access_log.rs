//! Access logs: one line for each request or connection that passes the filter.
//!
//! Every worker thread has [`ThreadLogs`], the buffers of all files it logs to, and an
//! [`AccessLogger`] for each list of access logs in the configuration. Lines are formatted into
//! the buffer of their sink; whole buffers go to the sink's writer thread, which is the only one
//! that makes a system call that can block. Nothing here ever waits on a disk.

mod filter;
mod json;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

use std::{cell::RefCell, rc::Rc, sync::Arc};

use crate::{
    config::access_log::{AccessLog, LogFormat},
    http::stream_info::LogContext,
};
use filter::Filter;
use sink::SinkWriter;
pub use writer::{Counts, LogError, LogWriter};

/// Bytes after which a buffer is handed to the writer without waiting for the tick.
const FLUSH_AT: usize = 64 * 1024;

/// The buffers of one worker thread, one for each sink.
#[derive(Clone, Debug)]
pub struct ThreadLogs {
    writer: Arc<LogWriter>,
    buffers: Rc<RefCell<Vec<Rc<Buffer>>>>,
}

/// Lines of one thread for one sink. Invariant: it ends where a line ends.
#[derive(Debug)]
struct Buffer {
    sink: Arc<SinkWriter>,
    lines: RefCell<Lines>,
}

/// Whole lines and their number.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
}

impl ThreadLogs {
    /// The logs of one thread. All threads of a process share the writer.
    pub fn new(writer: &Arc<LogWriter>) -> Self {
        Self { writer: Arc::clone(writer), buffers: Rc::default() }
    }

    /// A logger for a list of access logs.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn logger(&self, logs: &[AccessLog]) -> Result<AccessLogger, LogError> {
        let entry = |log: &AccessLog| {
            Ok(Entry {
                buffer: self.buffer(log)?,
                filter: log.filter.as_ref().map(Filter::new),
                format: log.format.clone(),
            })
        };
        Ok(AccessLogger { entries: logs.iter().map(entry).collect::<Result<_, _>>()? })
    }

    /// Hands everything that is buffered to the writer. To be called about every second, and
    /// before the thread ends.
    pub fn flush(&self) {
        for buffer in self.buffers.borrow().iter() {
            buffer.flush();
        }
    }

    fn buffer(&self, log: &AccessLog) -> Result<Rc<Buffer>, LogError> {
        let sink = self.writer.open(&log.sink)?;
        let mut buffers = self.buffers.borrow_mut();
        if let Some(known) = buffers.iter().find(|buffer| Arc::ptr_eq(&buffer.sink, &sink)) {
            return Ok(Rc::clone(known));
        }
        let buffer = Rc::new(Buffer { sink, lines: RefCell::default() });
        buffers.push(Rc::clone(&buffer));
        Ok(buffer)
    }
}

impl Buffer {
    fn flush(&self) {
        let lines = self.lines.take();
        if lines.count > 0 {
            self.sink.submit(lines);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The access logs of one listener or HTTP connection manager, on one thread.
#[derive(Debug, Default)]
pub struct AccessLogger {
    entries: Box<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    buffer: Rc<Buffer>,
    filter: Option<Filter>,
    format: LogFormat,
}

impl AccessLogger {
    /// True when nothing is ever logged, so that the context need not be made.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Logs a stream that has ended.
    pub fn log(&self, cx: &LogContext<'_>) {
        for entry in &self.entries {
            if entry.filter.as_ref().is_none_or(|filter| filter.matches(cx)) {
                entry.write(cx);
            }
        }
    }
}

impl Entry {
    fn write(&self, cx: &LogContext<'_>) {
        let mut lines = self.buffer.lines.borrow_mut();
        match &self.format {
            LogFormat::Text(format) => format.write(&mut lines.bytes, cx),
            LogFormat::Json { fields, omit_empty } => {
                json::write(&mut lines.bytes, fields, *omit_empty, cx);
                lines.bytes.push(b'\n');
            }
        }
        lines.count += 1;
        let full = lines.bytes.len() >= FLUSH_AT;
        drop(lines);
        if full {
            self.buffer.flush();
        }
    }
}
