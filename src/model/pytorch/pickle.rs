//! A reader of pickles that builds data and calls nothing.
//!
//! Python's unpickler is a stack machine whose `REDUCE` calls any function. Here `GLOBAL` is a name and `REDUCE` is a
//! value, [`Value::Call`]; what PyTorch's few functions would build is decided by the readers of the values. Names of
//! functions that run programs are refused, so that nobody loads such a file with Python afterwards.
//!
//! `candle_core::pickle::Stack` is not used: it copies an object when it enters the memo, so that a state dict that is
//! saved under two keys is empty under the second one; it allocates what a length field claims, copies nested values
//! exponentially often, recurses as deep as the file nests, cannot read the legacy format's magic number, and panics on
//! calls with too few arguments. Values here are kept in a list and refer to each other by index: shared values are
//! shared, and neither reading nor dropping recurses.
//!
//! Source: `Lib/pickletools.py` of CPython for the opcodes of the protocols 2 to 5.

use std::collections::HashMap;

/// Index of a value in [`Pickle::values`].
pub(super) type Id = usize;

/// Values in one pickle. A checkpoint with an optimiser has about a hundred thousand.
const MAX_VALUES: usize = 4_000_000;

/// Modules whose functions no checkpoint needs and that run programs or code.
const FORBIDDEN: [&str; 15] = [
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "shutil",
    "socket",
    "runpy",
    "pty",
    "importlib",
    "webbrowser",
    "ctypes",
    "code",
    "commands",
    "asyncio",
];
/// Built-in functions that run code or open files.
const FORBIDDEN_BUILT_INS: [&str; 7] = ["eval", "exec", "execfile", "compile", "open", "__import__", "breakpoint"];

/// A value of a pickle. Texts and bytes are those of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    /// `None`, or a value that no reader needs, such as a float.
    Other,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A longer integer, in little-endian two's complement.
    Long(&'a [u8]),
    /// `str`.
    Text(&'a str),
    /// `bytes`.
    Bytes(&'a [u8]),
    /// A class or function.
    Class {
        /// Such as `torch._utils`.
        module: &'a str,
        /// Such as `_rebuild_tensor_v2`.
        name: &'a str,
    },
    /// `tuple`.
    Tuple(Vec<Id>),
    /// `list`, `set` or `frozenset`.
    List(Vec<Id>),
    /// `dict` and `OrderedDict`; of equal keys the last one counts.
    Dict(Vec<(Id, Id)>),
    /// What a call would have returned.
    Call {
        /// The class or function.
        callable: Id,
        /// Its arguments.
        arguments: Id,
        /// What its `__setstate__` would have been called with.
        state: Option<Id>,
    },
    /// An object outside of the pickle, for PyTorch a storage, with its description.
    External(Id),
}

/// The values of one pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    /// Bytes from the first opcode through `STOP`.
    pub(super) length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`.
    ///
    /// # Errors
    /// Returns what is wrong and at which byte.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine { bytes, ..Machine::default() };
        match machine.run() {
            Ok(root) => Ok(Self { values: machine.values, root, length: machine.at }),
            Err(what) => Err(format!("{what} (at byte {} of a pickle)", machine.opcode)),
        }
    }

    /// The value at the top.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// All objects outside of the pickle, for PyTorch its storages.
    pub(super) fn externals(&self) -> impl Iterator<Item = Id> + '_ {
        (0..self.values.len()).filter(|id| matches!(self.values[*id], Value::External(_)))
    }

    /// A value. `Id`s come from this pickle, so they are in range.
    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        self.values.get(id).unwrap_or(&Value::Other)
    }

    /// The elements, if it is a tuple.
    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        if let Value::Tuple(items) = self.get(id) { Some(items) } else { None }
    }

    /// The elements, if it is a list.
    pub(super) fn list(&self, id: Id) -> Option<&[Id]> {
        if let Value::List(items) = self.get(id) { Some(items) } else { None }
    }

    /// The items, if it is a dict.
    pub(super) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        if let Value::Dict(items) = self.get(id) { Some(items) } else { None }
    }

    /// The text, if it is one.
    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        if let Value::Text(text) = self.get(id) { Some(text) } else { None }
    }

    /// The number, if it is an integer of at least 0.
    pub(super) fn count(&self, id: Id) -> Option<usize> {
        if let Value::Int(number) = self.get(id) { usize::try_from(*number).ok() } else { None }
    }

    /// Module and name, if it is a class or function.
    pub(super) fn class(&self, id: Id) -> Option<(&'a str, &'a str)> {
        if let Value::Class { module, name } = self.get(id) { Some((module, name)) } else { None }
    }

    /// Module and name of the function, and its arguments, if it is a call.
    pub(super) fn call(&self, id: Id) -> Option<((&'a str, &'a str), &[Id])> {
        let Value::Call { callable, arguments, .. } = self.get(id) else { return None };
        let class = match self.get(*callable) {
            // The legacy format stores classes of modules as ('module', class, file, source).
            Value::External(description) => self.class(*self.tuple(*description)?.get(1)?)?,
            _ => self.class(*callable)?,
        };
        Some((class, self.tuple(*arguments)?))
    }
}

/// The stack machine.
#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    /// The next byte.
    at: usize,
    /// The byte of the current opcode.
    opcode: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Items of dicts that were copied from lists.
    copied: usize,
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match usize::try_from(count).ok().and_then(|count| rest.get(..count)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(format!("expected {count} more bytes, found {}", rest.len())),
        }
    }

    /// A little-endian number of `size` bytes, at most eight.
    fn number(&mut self, size: u64) -> Result<u64, String> {
        Ok(self.take(size)?.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn short(&mut self, size: u64) -> Result<u32, String> {
        Ok(self.number(size)? as u32)
    }

    fn text(&mut self, bytes: &'a [u8]) -> Result<&'a str, String> {
        std::str::from_utf8(bytes).map_err(|e| format!("a text is not UTF-8: {e}"))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err("a name does not end".into());
        };
        self.at += length + 1;
        self.text(&rest[..length])
    }

    fn value(&mut self, value: Value<'a>) -> Result<Id, String> {
        if self.values.len() == MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.values.push(value);
        Ok(self.values.len() - 1)
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        let id = self.value(value)?;
        self.stack.push(id);
        Ok(())
    }

    /// Values below the last mark are out of reach.
    fn pop(&mut self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => Err("an operation finds too few values on the stack".into()),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let height = self.marks.pop().ok_or("an operation finds no mark on the stack")?;
        Ok(self.stack.split_off(height.min(self.stack.len())))
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| "an operation finds no value on the stack".into())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let id = *self.memo.get(&key).ok_or_else(|| format!("the memo has no entry {key}"))?;
        self.stack.push(id);
        Ok(())
    }

    fn class(&mut self, module: &'a str, name: &'a str) -> Result<(), String> {
        let package = module.split('.').next().unwrap_or_default();
        let built_in = ["builtins", "__builtin__"].contains(&module) && FORBIDDEN_BUILT_INS.contains(&name);
        if FORBIDDEN.contains(&package) || built_in {
            return Err(format!(
                "the file wants to call {}.{}, which no checkpoint needs: it may be an attack. Nothing was executed; do \
                 not load it with Python, and fetch it again from a source that you trust",
                printable(module),
                printable(name)
            ));
        }
        self.push(Value::Class { module, name })
    }

    fn call(&mut self, callable: Id, arguments: Id) -> Result<(), String> {
        let dict = matches!(
            &self.values[callable],
            Value::Class { module: "collections", name: "OrderedDict" | "defaultdict" }
                | Value::Class { module: "builtins" | "__builtin__", name: "dict" }
        );
        if !dict {
            return self.push(Value::Call { callable, arguments, state: None });
        }
        // Python 2 pickles an OrderedDict as a call with a list of pairs.
        let of = |id: Id| match &self.values[id] {
            Value::Tuple(items) | Value::List(items) => items.as_slice(),
            _ => &[],
        };
        let pairs = of(arguments).first().map_or(&[][..], |list| of(*list));
        let items =
            pairs.iter().filter_map(|pair| if let [key, value] = *of(*pair) { Some((key, value)) } else { None });
        let items: Vec<(Id, Id)> = items.collect();
        // A list that is used again is copied again.
        self.copied += items.len();
        if self.copied > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} items of dicts"));
        }
        self.push(Value::Dict(items))
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::List(list) => list.extend(items),
            // A subclass of a list, whose content no reader needs.
            Value::Call { .. } => {}
            _ => return Err("appends to a value that is not a list".into()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err("sets a key without a value".into());
        }
        match &mut self.values[top] {
            Value::Dict(dict) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Value::Call { .. } => {}
            _ => return Err("sets an item of a value that is not a dict".into()),
        }
        Ok(())
    }

    fn build(&mut self) -> Result<(), String> {
        let (given, object) = (self.pop()?, self.top()?);
        // The attributes of a dict, such as a state dict's `_metadata`, are not items.
        if let Value::Call { state, .. } = &mut self.values[object] {
            *state = Some(given);
        }
        Ok(())
    }

    fn run(&mut self) -> Result<Id, String> {
        loop {
            self.opcode = self.at;
            let opcode = self.take(1)?[0];
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO, FRAME
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            // Constants
            b'N' => self.push(Value::Other),
            0x88 | 0x89 => self.push(Value::Bool(opcode == 0x88)),
            // BININT, BININT1, BININT2, BINFLOAT
            b'J' => self.short(4).and_then(|n| self.push(Value::Int(i64::from(n as i32)))),
            b'K' => self.short(1).and_then(|n| self.push(Value::Int(n.into()))),
            b'M' => self.short(2).and_then(|n| self.push(Value::Int(n.into()))),
            b'G' => self.take(8).and_then(|_| self.push(Value::Other)),
            // LONG1, LONG4
            0x8a | 0x8b => {
                let length = self.number(if opcode == 0x8a { 1 } else { 4 })?;
                let bytes = self.take(length)?;
                let number = if bytes.len() <= 8 { Value::Int(little_endian(bytes)) } else { Value::Long(bytes) };
                self.push(number)
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c | b'X' | 0x8d => {
                let length = self.number(match opcode {
                    0x8c => 1,
                    b'X' => 4,
                    _ => 8,
                })?;
                let bytes = self.take(length)?;
                let text = self.text(bytes)?;
                self.push(Value::Text(text))
            }
            // SHORT_BINSTRING, BINSTRING: `str` of Python 2
            b'U' | b'T' => {
                let length = self.number(if opcode == b'U' { 1 } else { 4 })?;
                let bytes = self.take(length)?;
                self.push(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text))
            }
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' | b'B' | 0x8e | 0x96 => {
                let length = self.number(match opcode {
                    b'C' => 1,
                    b'B' => 4,
                    _ => 8,
                })?;
                let bytes = self.take(length)?;
                self.push(Value::Bytes(bytes))
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.class(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (&Value::Text(module), &Value::Text(name)) => self.class(module, name),
                    _ => Err("the name of a class is not a text".into()),
                }
            }
            _ => self.step_structure(opcode),
        }
    }

    /// Opcodes that put values together or move them.
    fn step_structure(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // MARK, POP, POP_MARK, DUP
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' | 0x85..=0x87 => {
                let count = if opcode == b')' { 0 } else { usize::from(opcode - 0x84) };
                let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                self.push(Value::Tuple(items))
            }
            b't' => self.pop_to_mark().and_then(|items| self.push(Value::Tuple(items))),
            // EMPTY_LIST, EMPTY_SET, LIST, FROZENSET, APPEND, APPENDS, ADDITEMS
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'l' | 0x91 => self.pop_to_mark().and_then(|items| self.push(Value::List(items))),
            b'a' => self.pop().and_then(|item| self.extend_list(vec![item])),
            b'e' | 0x90 => self.pop_to_mark().and_then(|items| self.extend_list(items)),
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.extend_dict(&items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(&[key, value])
            }
            b'u' => self.pop_to_mark().and_then(|items| self.extend_dict(&items)),
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => self.short(1).and_then(|key| self.remember(key)),
            b'r' => self.short(4).and_then(|key| self.remember(key)),
            0x94 => self.remember(self.memo.len() as u32),
            b'h' => self.short(1).and_then(|key| self.recall(key)),
            b'j' => self.short(4).and_then(|key| self.recall(key)),
            // REDUCE and NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments)
            }
            0x92 => {
                let (_keywords, arguments, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callable, arguments)
            }
            b'b' => self.build(),
            b'Q' => self.pop().and_then(|description| self.push(Value::External(description))),
            _ => Err(format!(
                "found opcode {opcode:#04x}, expected one of the pickle protocols 2 to 5; if the file is whole, save it \
                 again with torch.save"
            )),
        }
    }
}

/// A number of up to eight bytes in two's complement.
fn little_endian(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(whole)
}

/// A name from a file for a message: short, and without characters that control a terminal.
pub(super) fn printable(name: &str) -> String {
    let mut short: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_values_are_shared_even_if_they_are_filled_later() {
        // {'a': d, 'b': d} where d is memoised empty and then gets {'x': 1}, as torch.save writes it.
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00a}q\x01X\x01\x00\x00\x00xK\x01sX\x01\x00\x00\x00bh\x01u.";
        let pickle = Pickle::read(bytes).unwrap();
        assert_eq!(pickle.length, bytes.len());
        let root = pickle.dict(pickle.root()).unwrap();
        let keys: Vec<_> = root.iter().map(|(key, _)| pickle.text(*key).unwrap()).collect();
        assert_eq!(keys, ["a", "b"]);
        for (_, value) in root {
            let [(key, one)] = pickle.dict(*value).unwrap() else { panic!("expected one item") };
            assert_eq!((pickle.text(*key), pickle.count(*one)), (Some("x"), Some(1)));
        }
    }

    #[test]
    fn numbers() {
        let int = |bytes: &'static [u8]| Pickle::read(bytes).map(|pickle| pickle.get(pickle.root()).clone());
        assert_eq!(int(b"K\xff."), Ok(Value::Int(255)));
        assert_eq!(int(b"M\x01\x02."), Ok(Value::Int(513)));
        assert_eq!(int(b"J\xff\xff\xff\xff."), Ok(Value::Int(-1)));
        assert_eq!(int(b"\x8a\x00."), Ok(Value::Int(0)));
        assert_eq!(int(b"\x8a\x02\x00\x80."), Ok(Value::Int(-32768)));
        assert_eq!(int(b"\x8a\x09123456789."), Ok(Value::Long(b"123456789")));
    }

    #[test]
    fn damaged_pickles_are_refused_with_the_place() {
        let cases: [(&[u8], &str); 16] = [
            (b"", "1 more bytes, found 0"),
            (b"\x80\x02", "1 more bytes"),
            (b".", "too few values"),
            (b"(.", "too few values"),
            (b"N(\x85.", "too few values"),
            (b"t.", "no mark"),
            (b"h\x07.", "the memo has no entry 7"),
            (b"q\x07.", "no value on the stack"),
            (b"X\xff\xff\xff\xffabc.", "expected 4294967295 more bytes, found 4"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "more bytes"),
            (b"X\x01\x00\x00\x00\xff.", "not UTF-8"),
            (b"cos", "does not end"),
            (b"NNNs.", "not a dict"),
            (b"N(NNu.", "not a dict"),
            (b"}(Nu.", "without a value"),
            (b"Vtext\n.", "opcode 0x56"),
        ];
        for (bytes, expected) in cases {
            let error = Pickle::read(bytes).unwrap_err();
            assert!(error.contains(expected) && error.contains("at byte"), "{error}: expected '{expected}'");
        }
    }

    #[test]
    fn nothing_is_called_and_functions_that_run_code_are_refused() {
        for (module, name) in [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("os.path", "join")] {
            let error = Pickle::read(format!("c{module}\n{name}\n(t R.").as_bytes()).unwrap_err();
            assert!(error.contains(&format!("{module}.{name}")) && error.contains("Nothing was executed"), "{error}");
            let stack_global = [b"\x8c", &[module.len() as u8][..], module.as_bytes(), b"\x8c", &[name.len() as u8]];
            let error = Pickle::read(&[&stack_global.concat(), name.as_bytes(), b"\x93."].concat()).unwrap_err();
            assert!(error.contains("Nothing was executed"), "{error}");
        }
        let pickle = Pickle::read(b"cargparse\nNamespace\n)\x81}b.").unwrap();
        assert_eq!(pickle.call(pickle.root()), Some((("argparse", "Namespace"), &[][..])));
    }

    /// Candle's reader recurses or copies in all of these.
    #[test]
    fn deep_nesting_and_repeated_references_take_linear_memory() {
        let deep = [&[b'N'][..], &[0x85].repeat(1_000_000), b"."].concat();
        assert_eq!(Pickle::read(&deep).unwrap().values.len(), 1_000_001);
        // t = (t, t), sixty times: 2^60 values if they were copied.
        let doubling = [&b"N"[..], &b"2\x86".repeat(60), b"."].concat();
        assert_eq!(Pickle::read(&doubling).unwrap().values.len(), 61);
        let many = [&b")".repeat(MAX_VALUES + 1)[..], b"."].concat();
        assert!(Pickle::read(&many).unwrap_err().contains("more than 4000000 values"));
    }

    #[test]
    fn names_in_messages_are_short_and_harmless() {
        assert_eq!(printable("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
        assert_eq!(printable(&"x".repeat(200)).chars().count(), 81);
    }
}
