//! Invalid calls must return an error that explains the problem, and never panic.

use fairtat::data::ImageShape;
use fairtat::engine::{
    Batch, BatchNormMode, Engine, EngineError, Input, LossSpec, LossTerm, Objective, SearchSpec, SgdStep, Start, Term,
    View, Weights,
};
use fairtat::fairness::TargetDistribution;
use fairtat::model::{Architecture, State};
use fairtat::rng::Purpose;

use super::{CLASSES, Subject, settled};
use crate::engines::{ENGINES, Tested};
use crate::passes::no_search;

const N: usize = 4;
const STEP: SgdStep = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: false };

/// Asserts an [`EngineError::Invalid`] that contains `part`.
#[track_caller]
fn invalid<T>(result: Result<T, EngineError>, part: &str) {
    match result {
        Err(EngineError::Invalid(text)) => assert!(text.contains(part), "'{text}' does not say '{part}'"),
        Err(other) => panic!("another kind of error: {other}"),
        Ok(_) => panic!("no error that says '{part}'"),
    }
}

/// Asserts an [`EngineError::NotFinite`]. Every engine checks the logits; Candle names the first value that is not
/// finite.
#[track_caller]
fn not_finite<T>(tested: Tested, first: &str, result: Result<T, EngineError>) {
    match result {
        Err(EngineError::NotFinite { what, batch }) => {
            assert!(batch >= N && (what == first || tested.name != "candle"), "found '{what}', expected '{first}'");
        }
        Err(other) => panic!("another kind of error: {other}"),
        Ok(_) => panic!("what is not a number went unnoticed"),
    }
}

/// Runs a check on a fresh instance of every engine, which must still work afterwards.
fn each(check: impl Fn(&mut dyn Engine, &Subject)) {
    let subject = Subject::new(1, N, 2);
    for tested in ENGINES {
        let mut engine = subject.open(tested);
        let before = engine.logits(&Input::Batch(&subject.batch()), BatchNormMode::Eval).unwrap();
        check(engine.as_mut(), &subject);
        assert_eq!(engine.logits(&Input::Batch(&subject.batch()), BatchNormMode::Eval).unwrap(), before);
    }
}

#[test]
fn batches_that_contradict_themselves_are_refused_by_every_call() {
    each(|engine, subject| {
        let good = subject.batch();
        let cases: [(Batch<'_>, &str); 5] = [
            (Batch { pixels: &good.pixels[1..], ..good }, "needs 768 bytes and 4 ids, found 767 and 4"),
            (Batch { ids: &good.ids[1..], ..good }, "found 768 and 3"),
            (Batch { labels: &[0, 1, CLASSES as u32, 2], ..good }, "image 2 has class 5, expected 0 to 4"),
            (Batch { labels: &[0, u32::MAX, 1, 2], ..good }, "image 1 has class 4294967295"),
            (Batch { pixels: &[], labels: &[], ids: &[], ..good }, "at least one image"),
        ];
        for (batch, part) in cases {
            let input = Input::Batch(&batch);
            invalid(engine.perturb(&batch, &no_search(batch.len())), part);
            invalid(engine.logits(&input, BatchNormMode::Train), part);
            invalid(engine.input_gradient(&input, &Objective::CrossEntropy, BatchNormMode::Train), part);
        }
        let images = subject.images();
        for (images, labels, part) in [
            (&images[1..], &subject.labels[..], "found 767"),
            (&images[..], &subject.labels[1..], "hold 576 values, found 768"),
            (&[][..], &[][..], "found 0"),
            (&images[..], &[9, 0, 0, 0][..], "image 0 has class 9"),
        ] {
            let input = Input::Images(images, labels);
            invalid(engine.logits(&input, BatchNormMode::Train), part);
            invalid(engine.input_gradient(&input, &Objective::CrossEntropy, BatchNormMode::Train), part);
        }
    });
}

#[test]
fn searches_that_contradict_their_batch_are_refused() {
    each(|engine, subject| {
        let good = SearchSpec { steps: 2, batch_norm: BatchNormMode::Train, ..no_search(N) };
        let with = |values: [f32; N]| SearchSpec { epsilon: values.to_vec(), ..good.clone() };
        let normal = |deviation| Start::Normal { deviation, purpose: Purpose::Test, epoch: 0 };
        let values = subject.pixels.len();
        let drawn = |classes| Objective::Drawn(TargetDistribution::uniform(classes).table());
        let cases = [
            (with([0.1, f32::NAN, 0.1, 0.1]), "epsilon is NaN"),
            (with([0.1, 0.1, -0.1, 0.1]), "epsilon is -0.1, expected a number of at least 0"),
            (with([0.1, 0.1, 0.1, f32::INFINITY]), "epsilon is inf"),
            (SearchSpec { epsilon: vec![0.1; 3], ..good.clone() }, "epsilon is given for 3 images, expected 4"),
            (SearchSpec { step_size: vec![0.1; 5], ..good.clone() }, "step_size is given for 5 images, expected 4"),
            (SearchSpec { step_size: vec![f32::NAN; N], ..good.clone() }, "step_size is NaN"),
            (SearchSpec { objective: Objective::Targeted(vec![0; 3]), ..good.clone() }, "targets are given for 3"),
            (SearchSpec { objective: Objective::Targeted(vec![0, 1, 2, 5]), ..good.clone() }, "image 3 has class 5"),
            (SearchSpec { objective: drawn(CLASSES + 1), ..good.clone() }, "drawn from 6 classes, the network has 5"),
            (SearchSpec { start: Start::Given(vec![0.0; values - 1]), ..good.clone() }, "holds 768 values, found 767"),
            (SearchSpec { start: Start::Given(vec![f32::NAN; values]), ..good.clone() }, "not finite"),
            (SearchSpec { start: normal(f32::NAN), ..good.clone() }, "deviation of the start is NaN"),
        ];
        for (spec, part) in cases {
            invalid(engine.perturb(&subject.batch(), &spec), part);
        }
        let batch = subject.batch();
        let mut gradient = |objective| engine.input_gradient(&Input::Batch(&batch), &objective, BatchNormMode::Train);
        invalid(gradient(Objective::Targeted(vec![0; 3])), "targets are given for 3 images, expected 4");
        invalid(gradient(Objective::Targeted(vec![7; 4])), "class 7");
        invalid(gradient(Objective::KlToClean), "clean images");
        invalid(gradient(drawn(CLASSES)), "given targets");
    });
}

#[test]
fn dlr_needs_three_classes() {
    let network = Architecture::DigitsCnn.build(ImageShape::new(1, 8, 8), 2, None, Some(2));
    let state = State::initialise(&network, 0);
    let batch = Batch { pixels: &[9; 64], labels: &[1], ids: &[0], augment: None, seed: 0, epoch: 0 };
    for tested in ENGINES {
        let mut engine = (tested.open)(network.clone(), &state);
        let spec = SearchSpec { objective: Objective::Dlr, steps: 1, ..no_search(1) };
        invalid(engine.perturb(&batch, &spec), "DLR compares three logits, the network has 2");
        let gradient = engine.input_gradient(&Input::Batch(&batch), &Objective::Dlr, BatchNormMode::Eval);
        invalid(gradient, "DLR compares three logits, the network has 2");
    }
}

#[test]
fn views_are_refused_once_a_later_search_has_replaced_them() {
    each(|engine, subject| {
        let old = engine.perturb(&subject.batch(), &no_search(N)).unwrap();
        let new = engine.perturb(&subject.part(0..2), &no_search(2)).unwrap();
        let loss = LossSpec::cross_entropy(View::Clean);
        let part = "another search has begun since";
        invalid(engine.train_step(&old, &loss, &STEP), part);
        invalid(engine.read_view(&old, View::Adversarial), part);
        let input = Input::View(&old, View::Clean);
        invalid(engine.logits(&input, BatchNormMode::Train), part);
        invalid(engine.input_gradient(&input, &Objective::CrossEntropy, BatchNormMode::Train), part);
        assert_eq!((old.len(), new.len(), new.is_empty()), (N, 2, false));
        assert_eq!(engine.read_view(&new, View::Clean).unwrap(), subject.part(0..2).prepare(subject.network.input));
    });
}

#[test]
fn losses_that_do_not_fit_the_batch_are_refused() {
    each(|engine, subject| {
        let views = engine.perturb(&subject.batch(), &no_search(N)).unwrap();
        invalid(engine.train_step(&views, &LossSpec::of(Vec::new()), &STEP), "at least one term");
        let mut step = |weights| {
            let term = LossTerm { weights, ..LossTerm::mean(1.0, Term::CrossEntropy(View::Clean)) };
            engine.train_step(&views, &LossSpec::of(vec![term]), &STEP)
        };
        invalid(step(Weights::PerImage(vec![1.0; N + 1])), "weights for 5 images, expected 4");
        invalid(step(Weights::PerClass(vec![1.0; 2])), "weights for 2 classes, expected");
        invalid(step(Weights::PerImage(vec![f32::NAN; N])), "weight NaN, expected a number");
    });
}

#[test]
fn states_that_do_not_fit_are_refused_and_change_nothing() {
    each(|engine, subject| {
        let state = engine.state().unwrap();
        let model_error = |result: Result<(), EngineError>, part: &str| match result {
            Err(EngineError::Model(error)) => assert!(error.to_string().contains(part), "{error}"),
            other => panic!("{other:?}"),
        };
        let mut broken = subject.state.clone();
        broken.0.get_mut("bn1.bias").unwrap().data[0] = f32::NAN;
        model_error(engine.load_model(&broken), "'bn1.bias' holds values that are not finite");
        let mut missing = subject.state.clone();
        missing.0.remove("linear.bias");
        model_error(engine.load_model(&missing), "'linear.bias' [5] is missing");
        let mut bad = state.clone();
        bad.momentum.0.get_mut("conv1.weight").unwrap().data[3] = f32::INFINITY;
        model_error(engine.load_state(&bad), "momentum of 'conv1.weight' holds values that are not finite");
        let mut short = state.clone();
        short.momentum.0.remove("bn2.weight");
        model_error(engine.load_state(&short), "momentum of 'bn2.weight' is missing");
        let mut model = state.clone();
        model.model = broken;
        model_error(engine.load_state(&model), "not finite");
        assert_eq!(engine.state().unwrap(), state);
    });
}

#[test]
fn networks_that_overflow_are_noticed() {
    for tested in ENGINES {
        let subject = settled(tested, 1, 2);
        let n = subject.labels.len();
        // The first values to overflow: the first activations, later ones, or only the logits.
        for huge in ["conv1", "conv3", "linear"] {
            let mut state = subject.state.clone();
            state.0.get_mut(&format!("{huge}.weight")).unwrap().data.fill(3e38);
            let first = format!("output of layer '{huge}'");
            let batch = subject.batch();
            for mode in [BatchNormMode::Eval, BatchNormMode::Train] {
                let open = || (tested.open)(subject.network.clone(), &state);
                not_finite(tested, &first, open().logits(&Input::Batch(&batch), mode));
                not_finite(
                    tested,
                    &first,
                    open().input_gradient(&Input::Batch(&batch), &Objective::CrossEntropy, mode),
                );
                let search = SearchSpec { steps: 1, batch_norm: mode, ..no_search(n) };
                not_finite(tested, &first, open().perturb(&batch, &search));
            }
            let mut engine = (tested.open)(subject.network.clone(), &state);
            let views = engine.perturb(&batch, &no_search(n)).unwrap();
            not_finite(tested, &first, engine.train_step(&views, &LossSpec::cross_entropy(View::Clean), &STEP));
        }
    }
}

#[test]
fn an_image_that_is_not_a_number_is_noticed_at_every_pixel() {
    for kind in 0..4 {
        let subject = Subject::new(kind, N, 2);
        for tested in ENGINES {
            let mut engine = subject.open(tested);
            for pixel in [0, 9, 27, 36, 63] {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut images = subject.images();
                    images[pixel] = bad;
                    let input = Input::Images(&images, &subject.labels);
                    not_finite(tested, "images", engine.logits(&input, BatchNormMode::Eval));
                }
            }
        }
    }
}
