//! One target under libFuzzer, in a process of its own: the engine ends the process when it is done.
//!
//! Its interface is LLVM's `FuzzerInterface.h`: the driver takes the arguments and calls back with each input.
#![expect(unsafe_code, reason = "libFuzzer is C++ and calls back with a pointer and a length")]

use std::{
    env,
    ffi::{CString, OsString, c_char, c_int},
    iter,
    os::unix::ffi::OsStringExt as _,
    panic,
    process::{self, ExitCode},
    ptr, slice,
    sync::OnceLock,
};

use crate::{Target, drive::PLANTED};

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(
        argc: *mut c_int,
        argv: *mut *mut *mut c_char,
        one_input: extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
}

/// What [`one_input`] runs; the engine has no place to hand it through.
static RUN: OnceLock<fn(&[u8])> = OnceLock::new();

extern "C" fn one_input(data: *const u8, length: usize) -> c_int {
    // SAFETY: libFuzzer passes a buffer of that length that outlives the call; an empty one may be null.
    let input = if length == 0 { &[] } else { unsafe { slice::from_raw_parts(data, length) } };
    if let Some(run) = RUN.get() {
        run(input);
    }
    0
}

/// Runs the engine on the target that the first argument names, with the others as they are.
pub(crate) fn run(targets: &[Target], arguments: &[OsString]) -> ExitCode {
    let named = arguments.first().and_then(|name| targets.iter().chain([&PLANTED]).find(|target| name == target.name));
    let Some(target) = named else {
        eprintln!("fuzz: engine needs the name of a target");
        return ExitCode::from(2);
    };
    RUN.get_or_init(|| target.run);
    // A panic must end the process where it happens, so that the engine writes down the input that led there.
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        say(info);
        process::abort();
    }));
    // The engine takes the first for the program's name, and to merge corpora it hands that to a shell, with arguments behind
    // it, to start this again.
    let Ok(program) = env::current_exe() else {
        eprintln!("fuzz: cannot find the way back to this program");
        return ExitCode::FAILURE;
    };
    let mut again = OsString::from("'");
    again.push(program);
    again.push(format!("' engine {}", target.name));
    let arguments = iter::once(&again).chain(&arguments[1..]);
    // A NUL cannot come out of an argument.
    let texts: Vec<CString> = arguments.filter_map(|argument| CString::new(argument.clone().into_vec()).ok()).collect();
    let mut pointers: Vec<*mut c_char> = texts.iter().map(|text| text.as_ptr().cast_mut()).collect();
    // Lossless: a command line is shorter.
    let mut count = pointers.len() as c_int;
    pointers.push(ptr::null_mut());
    let mut argv = pointers.as_mut_ptr();
    // SAFETY: `argv` has `count` texts and a null after them, all of which outlive the call.
    let code = unsafe { LLVMFuzzerRunDriver(&raw mut count, &raw mut argv, one_input) };
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
