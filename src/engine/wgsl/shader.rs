//! Shader sources and the preprocessor that expands them to variants.
//!
//! Every kernel is a file in `shaders/`; code that several kernels share is in `shaders/shared/`. A file is WGSL with
//! four directives, each on a separate line:
//!
//! * `#import "shared/philox.wgsl"`: inserts the text of that file, at its first import only.
//! * `#for i in A..B` … `#end`: repeats the enclosed lines for each value of `i`.
//! * `#if X` … `#else` … `#end`: selects the first lines if the expression is not zero, else the second.
//! * `#let x = EXPRESSION`: names a number until the end of the block.
//!
//! `{{EXPRESSION}}` anywhere inserts an integer, computed from the variant's constants, loop variables, numbers,
//! parentheses, `+ - * / %` and `== != < >`. Loops over registers are unrolled here because WGSL compilers do not do so
//! reliably: an array that is indexed by a loop variable may end up in memory.

use std::collections::{BTreeMap, BTreeSet};

/// Every file below `shaders/`.
pub(super) const FILES: &[(&str, &str)] = &[
    ("add.wgsl", include_str!("../../../shaders/add.wgsl")),
    ("bench_copy.wgsl", include_str!("../../../shaders/bench_copy.wgsl")),
    ("bench_fill.wgsl", include_str!("../../../shaders/bench_fill.wgsl")),
    ("bench_fma.wgsl", include_str!("../../../shaders/bench_fma.wgsl")),
    ("bench_nothing.wgsl", include_str!("../../../shaders/bench_nothing.wgsl")),
    ("conv_gemm.wgsl", include_str!("../../../shaders/conv_gemm.wgsl")),
    ("conv_gemm_broadcast.wgsl", include_str!("../../../shaders/conv_gemm_broadcast.wgsl")),
    ("conv_weight_gradient.wgsl", include_str!("../../../shaders/conv_weight_gradient.wgsl")),
    ("conv_weight_gradient_broadcast.wgsl", include_str!("../../../shaders/conv_weight_gradient_broadcast.wgsl")),
    ("sum_parts.wgsl", include_str!("../../../shaders/sum_parts.wgsl")),
    ("subgroup_size.wgsl", include_str!("../../../shaders/subgroup_size.wgsl")),
    ("confusion.wgsl", include_str!("../../../shaders/confusion.wgsl")),
    ("objective.wgsl", include_str!("../../../shaders/objective.wgsl")),
    ("outer_loss.wgsl", include_str!("../../../shaders/outer_loss.wgsl")),
    ("attack_noise.wgsl", include_str!("../../../shaders/attack_noise.wgsl")),
    ("snapshot.wgsl", include_str!("../../../shaders/snapshot.wgsl")),
    ("shared/search_progress.wgsl", include_str!("../../../shaders/shared/search_progress.wgsl")),
    ("pgd_start.wgsl", include_str!("../../../shaders/pgd_start.wgsl")),
    ("pgd_step.wgsl", include_str!("../../../shaders/pgd_step.wgsl")),
    ("prepare.wgsl", include_str!("../../../shaders/prepare.wgsl")),
    #[cfg(test)]
    ("random_words.wgsl", include_str!("../../../shaders/random_words.wgsl")),
    ("sample_targets.wgsl", include_str!("../../../shaders/sample_targets.wgsl")),
    ("sgd.wgsl", include_str!("../../../shaders/sgd.wgsl")),
    ("shared/across_lanes.wgsl", include_str!("../../../shaders/shared/across_lanes.wgsl")),
    ("shared/ball.wgsl", include_str!("../../../shaders/shared/ball.wgsl")),
    ("shared/broadcast_product.wgsl", include_str!("../../../shaders/shared/broadcast_product.wgsl")),
    ("shared/call.wgsl", include_str!("../../../shaders/shared/call.wgsl")),
    ("shared/conv_gemm.wgsl", include_str!("../../../shaders/shared/conv_gemm.wgsl")),
    ("shared/conv_weight_gradient.wgsl", include_str!("../../../shaders/shared/conv_weight_gradient.wgsl")),
    ("shared/exponential.wgsl", include_str!("../../../shaders/shared/exponential.wgsl")),
    ("shared/exponential_minus_one.wgsl", include_str!("../../../shaders/shared/exponential_minus_one.wgsl")),
    ("shared/first_largest.wgsl", include_str!("../../../shaders/shared/first_largest.wgsl")),
    ("shared/grid.wgsl", include_str!("../../../shaders/shared/grid.wgsl")),
    ("shared/image_info.wgsl", include_str!("../../../shaders/shared/image_info.wgsl")),
    ("shared/logarithm.wgsl", include_str!("../../../shaders/shared/logarithm.wgsl")),
    ("shared/philox.wgsl", include_str!("../../../shaders/shared/philox.wgsl")),
    ("shared/largest_beside.wgsl", include_str!("../../../shaders/shared/largest_beside.wgsl")),
    ("shared/softmax.wgsl", include_str!("../../../shaders/shared/softmax.wgsl")),
    ("global_pool.wgsl", include_str!("../../../shaders/global_pool.wgsl")),
    ("global_pool_backward.wgsl", include_str!("../../../shaders/global_pool_backward.wgsl")),
    ("linear_forward.wgsl", include_str!("../../../shaders/linear_forward.wgsl")),
    ("linear_input_gradient.wgsl", include_str!("../../../shaders/linear_input_gradient.wgsl")),
    ("linear_weight_gradient.wgsl", include_str!("../../../shaders/linear_weight_gradient.wgsl")),
    ("max_pool.wgsl", include_str!("../../../shaders/max_pool.wgsl")),
    ("max_pool_backward.wgsl", include_str!("../../../shaders/max_pool_backward.wgsl")),
    ("norm_apply.wgsl", include_str!("../../../shaders/norm_apply.wgsl")),
    ("norm_backward_apply.wgsl", include_str!("../../../shaders/norm_backward_apply.wgsl")),
    ("norm_backward_finalize.wgsl", include_str!("../../../shaders/norm_backward_finalize.wgsl")),
    ("norm_backward_sums.wgsl", include_str!("../../../shaders/norm_backward_sums.wgsl")),
    ("norm_finalize.wgsl", include_str!("../../../shaders/norm_finalize.wgsl")),
    ("norm_from_running.wgsl", include_str!("../../../shaders/norm_from_running.wgsl")),
    ("norm_statistics.wgsl", include_str!("../../../shaders/norm_statistics.wgsl")),
    ("relu.wgsl", include_str!("../../../shaders/relu.wgsl")),
    ("relu_backward.wgsl", include_str!("../../../shaders/relu_backward.wgsl")),
    ("shared/lanes.wgsl", include_str!("../../../shaders/shared/lanes.wgsl")),
    ("shared/max_pool.wgsl", include_str!("../../../shaders/shared/max_pool.wgsl")),
    ("shared/norm_affine.wgsl", include_str!("../../../shaders/shared/norm_affine.wgsl")),
    ("shared/norm_rows.wgsl", include_str!("../../../shaders/shared/norm_rows.wgsl")),
    ("shared/relu.wgsl", include_str!("../../../shaders/shared/relu.wgsl")),
    ("shared/read.wgsl", include_str!("../../../shaders/shared/read.wgsl")),
    ("shared/tile_product.wgsl", include_str!("../../../shaders/shared/tile_product.wgsl")),
    ("shared/winograd_gemm.wgsl", include_str!("../../../shaders/shared/winograd_gemm.wgsl")),
    ("shared/winograd_line.wgsl", include_str!("../../../shaders/shared/winograd_line.wgsl")),
    ("shared/winograd_outputs.wgsl", include_str!("../../../shaders/shared/winograd_outputs.wgsl")),
    ("shared/winograd_points.wgsl", include_str!("../../../shaders/shared/winograd_points.wgsl")),
    ("winograd_gemm.wgsl", include_str!("../../../shaders/winograd_gemm.wgsl")),
    ("winograd_gemm_broadcast.wgsl", include_str!("../../../shaders/winograd_gemm_broadcast.wgsl")),
    ("winograd_input.wgsl", include_str!("../../../shaders/winograd_input.wgsl")),
    ("winograd_output.wgsl", include_str!("../../../shaders/winograd_output.wgsl")),
    ("winograd_weight.wgsl", include_str!("../../../shaders/winograd_weight.wgsl")),
    ("head_attack.wgsl", include_str!("../../../shaders/head_attack.wgsl")),
    ("head_backward.wgsl", include_str!("../../../shaders/head_backward.wgsl")),
    ("head_forward.wgsl", include_str!("../../../shaders/head_forward.wgsl")),
    ("shared/head.wgsl", include_str!("../../../shaders/shared/head.wgsl")),
    ("shared/head_backward.wgsl", include_str!("../../../shaders/shared/head_backward.wgsl")),
    ("shared/head_forward.wgsl", include_str!("../../../shaders/shared/head_forward.wgsl")),
    ("shared/objective_gradient.wgsl", include_str!("../../../shaders/shared/objective_gradient.wgsl")),
    ("shared/pgd_step.wgsl", include_str!("../../../shaders/shared/pgd_step.wgsl")),
    ("stem_forward.wgsl", include_str!("../../../shaders/stem_forward.wgsl")),
    ("stem_gradient.wgsl", include_str!("../../../shaders/stem_gradient.wgsl")),
    ("stem_step.wgsl", include_str!("../../../shaders/stem_step.wgsl")),
    ("shared/stem_gradient.wgsl", include_str!("../../../shaders/shared/stem_gradient.wgsl")),
];

/// The line with which every kernel declares its parameters.
pub(super) const PARAMS: &str = "@group(0) @binding(0) var<uniform> params: Params;";

/// Replaces the uniform parameters of an expanded kernel by immediates: words that are recorded with a dispatch,
/// without a buffer.
///
/// # Errors
/// If the kernel does not declare its parameters as [`PARAMS`].
pub(super) fn with_immediates(source: &str) -> Result<String, String> {
    match source.matches(PARAMS).count() {
        1 => Ok(source.replace(PARAMS, "var<immediate> params: Params;")),
        found => Err(format!("expected the line `{PARAMS}` once, found it {found} times")),
    }
}

type Names = BTreeMap<String, i64>;

/// The WGSL of a variant: `file` expanded with `constants`.
///
/// # Errors
/// If a directive is invalid or a name is unknown; the message has file and line.
pub(super) fn expand(file: &str, constants: &[(&'static str, u32)]) -> Result<String, String> {
    let names = constants.iter().map(|(name, value)| ((*name).to_owned(), i64::from(*value))).collect();
    let mut out = String::new();
    include(file, &names, &mut BTreeSet::new(), &mut out)?;
    Ok(out)
}

fn include(file: &str, names: &Names, seen: &mut BTreeSet<String>, out: &mut String) -> Result<(), String> {
    if !seen.insert(file.to_owned()) {
        return Ok(());
    }
    let source = FILES.iter().find(|(name, _)| *name == file);
    let (_, source) = source.ok_or_else(|| format!("there is no shader file '{file}'"))?;
    let lines: Vec<(usize, &str)> = source.lines().enumerate().map(|(i, line)| (i + 1, line)).collect();
    block(&lines, names, seen, out).map_err(|(line, what)| format!("{file}:{line}: {what}"))
}

type At<T> = Result<T, (usize, String)>;

fn block(lines: &[(usize, &str)], names: &Names, seen: &mut BTreeSet<String>, out: &mut String) -> At<()> {
    let mut names = names.clone();
    let mut at = 0;
    while let Some(&(number, line)) = lines.get(at) {
        let fail = |what: String| (number, what);
        at += 1;
        let Some(directive) = line.trim_start().strip_prefix('#') else {
            out.push_str(&interpolate(line, &names).map_err(fail)?);
            out.push('\n');
            continue;
        };
        let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        match word {
            "import" => include(rest.trim().trim_matches('"'), &names, seen, out).map_err(fail)?,
            "let" => {
                let (name, value) = rest.split_once('=').ok_or_else(|| fail("expected `#let NAME = VALUE`".into()))?;
                let value = evaluate(value, &names).map_err(fail)?;
                names.insert(name.trim().to_owned(), value);
            }
            "for" => {
                let (body, otherwise, next) = body(lines, at).ok_or_else(|| fail("`#for` without `#end`".into()))?;
                if otherwise.is_some() {
                    return Err(fail("`#else` belongs to `#if`".into()));
                }
                let usage = || fail("expected `#for NAME in A..B`".into());
                let (name, range) = rest.split_once(" in ").ok_or_else(usage)?;
                let (from, to) = range.split_once("..").ok_or_else(usage)?;
                for value in evaluate(from, &names).map_err(fail)?..evaluate(to, &names).map_err(fail)? {
                    names.insert(name.trim().to_owned(), value);
                    block(body, &names, seen, out)?;
                }
                names.remove(name.trim());
                at = next;
            }
            "if" => {
                let (yes, no, next) = body(lines, at).ok_or_else(|| fail("`#if` without `#end`".into()))?;
                if evaluate(rest, &names).map_err(fail)? != 0 {
                    block(yes, &names, seen, out)?;
                } else if let Some(no) = no {
                    block(no, &names, seen, out)?;
                }
                at = next;
            }
            _ => return Err(fail(format!("unknown directive `#{word}`"))),
        }
    }
    Ok(())
}

type Lines<'a> = &'a [(usize, &'a str)];

/// The lines up to `#else` or the matching `#end`, those after `#else`, and the index after `#end`. `None` if there is
/// no matching `#end`.
fn body<'a>(lines: Lines<'a>, start: usize) -> Option<(Lines<'a>, Option<Lines<'a>>, usize)> {
    let (mut depth, mut middle) = (0, None);
    for (at, (_, line)) in lines.iter().enumerate().skip(start) {
        let line = line.trim();
        if line.starts_with("#for ") || line.starts_with("#if ") {
            depth += 1;
        } else if line == "#else" && depth == 0 {
            middle = Some(at);
        } else if line == "#end" {
            if depth == 0 {
                let first = &lines[start..middle.unwrap_or(at)];
                return Some((first, middle.map(|m| &lines[m + 1..at]), at + 1));
            }
            depth -= 1;
        }
    }
    None
}

fn interpolate(line: &str, names: &Names) -> Result<String, String> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{{") {
        let (expression, after) = after.split_once("}}").ok_or("`{{` without `}}`")?;
        out.push_str(before);
        out.push_str(&evaluate(expression, names)?.to_string());
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of an integer expression.
fn evaluate(text: &str, names: &Names) -> Result<i64, String> {
    let mut parser = Parser { rest: text.trim(), names };
    let value = parser.comparison()?;
    if parser.rest.is_empty() { Ok(value) } else { Err(format!("cannot parse '{}' in '{text}'", parser.rest)) }
}

struct Parser<'a> {
    rest: &'a str,
    names: &'a Names,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        let found = self.rest.strip_prefix(token);
        if let Some(rest) = found {
            self.rest = rest.trim_start();
        }
        found.is_some()
    }

    fn comparison(&mut self) -> Result<i64, String> {
        let left = self.sum()?;
        for (token, holds) in
            [("==", i64::eq as fn(&i64, &i64) -> bool), ("!=", i64::ne), ("<", i64::lt), (">", i64::gt)]
        {
            if self.take(token) {
                let right = self.sum()?;
                return Ok(i64::from(holds(&left, &right)));
            }
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value += self.product()?;
            } else if self.take("-") {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.atom()?;
        let by_zero = || "division by zero".to_owned();
        loop {
            if self.take("*") {
                value *= self.atom()?;
            } else if self.take("/") {
                value = value.checked_div(self.atom()?).ok_or_else(by_zero)?;
            } else if self.take("%") {
                value = value.checked_rem(self.atom()?).ok_or_else(by_zero)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self) -> Result<i64, String> {
        if self.take("(") {
            let value = self.comparison()?;
            return if self.take(")") { Ok(value) } else { Err("`(` without `)`".into()) };
        }
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        match word.parse() {
            Ok(number) => Ok(number),
            Err(_) => self.names.get(word).copied().ok_or_else(|| format!("'{word}' is not defined")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(source: &str, constants: &[(&str, i64)]) -> Result<String, (usize, String)> {
        let names = constants.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        let lines: Vec<(usize, &str)> = source.lines().enumerate().map(|(i, l)| (i + 1, l)).collect();
        let mut out = String::new();
        block(&lines, &names, &mut BTreeSet::new(), &mut out).map(|()| out)
    }

    #[test]
    fn directives_do_what_they_say() {
        let source = "#for i in 0..N\n#if i == 1\nb{{i * 2 + 1}}\n#else\na{{i}} {{(i+1)%2}}\n#end\n#end";
        assert_eq!(run(source, &[("N", 3)]).unwrap(), "a0 1\nb3\na2 1\n");
        assert_eq!(run("#let x = N - 1\n{{x}}", &[("N", 3)]).unwrap(), "2\n");
        assert_eq!(run("#for i in 0..2\n#for j in i..2\n{{i}}{{j}}\n#end\n#end", &[]).unwrap(), "00\n01\n11\n");
    }

    #[test]
    fn mistakes_name_their_line() {
        for (source, line, what) in [
            ("x\n{{y}}", 2, "'y' is not defined"),
            ("#for i in 0..2\nx", 1, "without `#end`"),
            ("\n#iff x", 2, "unknown directive"),
            ("{{1/0}}", 1, "division by zero"),
            ("{{(1}}", 1, "`(` without `)`"),
            ("{{1", 1, "`{{` without"),
            ("#import \"none.wgsl\"", 1, "no shader file"),
        ] {
            let (at, message) = run(source, &[]).unwrap_err();
            assert!(at == line && message.contains(what), "{source}: {at}: {message}");
        }
    }

    #[test]
    fn every_file_of_the_folder_is_listed() {
        // At run time: `benches/gpu.sh` runs this test on machines without the repository.
        let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = std::path::PathBuf::from(root).join("shaders");
        let mut found = Vec::new();
        for (folder, prefix) in [(root.clone(), ""), (root.join("shared"), "shared/")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.ends_with(".wgsl") {
                    found.push(format!("{prefix}{name}"));
                }
            }
        }
        found.sort();
        let mut listed: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        listed.sort();
        assert_eq!(found, listed);
    }
}
