//! Foreign code, which may panic, and what it says.
//!
//! Decides that a panic in it becomes an error like any other and prints nothing: the error is told once, by whoever
//! asked. A panic anywhere else prints as it always did.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use tract_onnx::prelude::TractError;

thread_local! {
    /// Whether this thread is inside foreign code.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs foreign code; a panic in it becomes what it said.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    hush();
    let before = INSIDE.replace(true);
    let ran = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(before);
    ran.map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        shorten(said.unwrap_or("the inference library gave up").to_owned())
    })
}

/// Puts a hook before the one that is there, once: it only keeps quiet inside. Nobody may change hooks while
/// panicking; who comes here then does without.
fn hush() {
    static HUSHED: Once = Once::new();
    if std::thread::panicking() {
        return;
    }
    HUSHED.call_once(|| {
        let hook = take_hook();
        set_hook(Box::new(move |panic| {
            if !INSIDE.get() {
                hook(panic);
            }
        }));
    });
}

/// What an error of the library says.
pub(crate) fn told(error: &TractError) -> String {
    shorten(format!("{error:#}"))
}

/// The library's messages can hold whole tensors.
fn shorten(mut message: String) -> String {
    const LONGEST: usize = 600;
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_what_it_said() {
        assert_eq!(guard(|| 1), Ok(1));
        assert_eq!(guard(|| -> u8 { std::panic::panic_any("oh no") }), Err("oh no".to_owned()));
        let long = guard(|| -> u8 { std::panic::panic_any("ä".repeat(1000)) }).unwrap_err();
        assert!(long.ends_with('…') && long.len() < 610);
    }

    #[test]
    fn only_what_is_inside_keeps_quiet() {
        assert!(!INSIDE.get());
        let nested = guard(|| {
            assert_eq!(guard(|| -> u8 { panic!("within") }), Err("within".to_owned()));
            INSIDE.get()
        });
        assert_eq!(nested, Ok(true), "the outer one goes on after the inner one failed");
        assert!(guard(|| -> u8 { panic!("without") }).is_err());
        assert!(!INSIDE.get());
    }

    /// This program, asked for one test again with its output let through.
    #[test]
    fn nothing_is_printed() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let ran =
            again.args(["--exact", "guard::tests::a_panic_becomes_what_it_said", "--nocapture"]).output().unwrap();
        let (out, said) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(out.contains("1 passed"), "{out}");
        assert!(!said.contains("panicked"), "{said}");
    }
}
