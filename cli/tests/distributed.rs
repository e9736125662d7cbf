//! The worked examples of `docs/distributed`: their commands are run as they stand there.

mod support;

use std::process::Stdio;

use serde_yaml_ng::Value;
use support::{Place, repository, stream};

fn example(name: &str) -> Value {
    let path = repository().join("docs/distributed").join(name);
    serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn suite() -> Place {
    let place = Place::with(&[]);
    for number in 0..12 {
        let code = format!("test('t', function(t) t:assert({number} ~= 7) end)");
        place.write(&format!("tests/f{number:02}.test.lua"), &code);
    }
    place
}

/// Runs a script of an example with these variables; answers its exit code.
fn run(place: &Place, script: &str, variables: &[(&str, String)]) -> i32 {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_provium"));
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut command = place.shell(script);
    command.env("PATH", path).stdout(Stdio::null());
    for (name, value) in variables {
        command.env(name, value);
    }
    command.status().unwrap().code().unwrap()
}

#[track_caller]
fn check_whole(place: &Place, dir: &str) {
    let ran = place.run_words(&["merge", "-o", "whole"], &place.files(dir, "events-"));
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stdout.contains("12 file(s), 1 failed"),
        "{}",
        ran.stdout
    );
    let outcomes = stream::read(&place.path().join("whole"));
    let completed = outcomes
        .iter()
        .filter(|event| event.kind.name() == "file_completed");
    assert_eq!(completed.count(), 12);
    let ran = place.run_words(&["merge", "-o", "junit.xml"], &place.files(dir, "junit-"));
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn the_kubernetes_job_runs_every_file_once() {
    let job = example("job.yaml");
    let spec = &job["spec"];
    let container = &spec["template"]["spec"]["containers"][0];
    let shards = container["env"][0]["value"].as_str().unwrap();
    let completions = spec["completions"].as_u64().unwrap();
    assert_eq!(completions.to_string(), shards, "a slice for each pod");
    let script = container["args"][0].as_str().unwrap();
    let place = suite();
    let mut failed = 0;
    for index in 0..completions {
        let code = run(
            &place,
            script,
            &[
                ("JOB_COMPLETION_INDEX", index.to_string()),
                ("PROVIUM_SHARDS", shards.to_owned()),
                (
                    "RESULTS",
                    place.path().join("results").display().to_string(),
                ),
            ],
        );
        failed += code;
    }
    assert_eq!(failed, 1, "one slice has the failing file");
    check_whole(&place, "results");
}

#[test]
fn the_gitlab_jobs_run_every_file_once() {
    let pipeline = example("gitlab-ci.yml");
    let total = pipeline["slices"]["parallel"].as_u64().unwrap();
    let script = pipeline["slices"]["script"][0].as_str().unwrap();
    let place = suite();
    for index in 1..=total {
        let variables = [
            ("CI_NODE_INDEX", index.to_string()),
            ("CI_NODE_TOTAL", total.to_string()),
        ];
        assert!(run(&place, script, &variables) < 2);
    }
    check_whole(&place, "out");
}

#[test]
fn the_github_matrix_runs_every_file_once_also_with_timings() {
    let workflow = example("github-matrix.yml");
    let slices = workflow["jobs"]["slice"]["strategy"]["matrix"]["slice"]
        .as_sequence()
        .unwrap();
    let steps = workflow["jobs"]["slice"]["steps"].as_sequence().unwrap();
    let script = steps.iter().find_map(|step| step["run"].as_str()).unwrap();
    let merge = workflow["jobs"]["whole"]["steps"].as_sequence().unwrap();
    let merge = merge.iter().find_map(|step| step["run"].as_str()).unwrap();
    let place = suite();
    for _round in ["without timings", "with the first round's"] {
        for slice in slices {
            let slice = slice.as_u64().unwrap().to_string();
            let script = script.replace("${{ matrix.slice }}", &slice);
            assert!(run(&place, &script, &[]) < 2);
        }
        check_whole(&place, "out");
        assert_eq!(run(&place, merge, &[]), 0);
        assert!(place.path().join("timings").is_file());
    }
}
