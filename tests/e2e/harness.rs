//! What every test needs: the program, servers behind it, clients in front of it, and patience.

pub mod client;
pub mod eventually;
pub mod hold;
pub mod lab;
pub mod proc;
pub mod program;

pub use eventually::eventually;
pub use lab::Lab;
pub use program::Program;
