//! Free memory of the heap.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "no dependency wraps malloc_trim(3)"))]

/// Gives free pages of the heap back to the system, after something large was freed. Free memory
/// between what is still in use stays with the process otherwise, for good.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, changes nothing that is in use, and may run at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
