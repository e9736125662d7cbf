//! The worked examples of `docs/distributed`: their commands are run as they stand there.

mod schema;
#[path = "../support/mod.rs"]
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

/// `job.schema.json` is that of batch/v1 Job in Kubernetes 1.33, without descriptions.
#[test]
fn the_kubernetes_job_is_one() {
    let schema = include_str!("job.schema.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let job = serde_json::to_value(example("job.yaml")).unwrap();
    assert_eq!(
        (&job["apiVersion"], &job["kind"]),
        (&"batch/v1".into(), &"Job".into())
    );
    assert_eq!(schema::problems(&schema, &job), [""; 0]);

    // What is wrong is found, in every place where a mistake is easily made.
    for (place, wrong, problem) in [
        ("/spec/completions", "5".into(), "is not of type"),
        ("/spec/completion", 5.into(), "there is no such field"),
        (
            "/spec/template/spec/containers/0/name",
            serde_json::Value::Null,
            "is missing",
        ),
        (
            "/spec/template/spec/containers/0/comand",
            "sh".into(),
            "there is no such field",
        ),
        (
            "/spec/template/spec/containers/0/env/0/value",
            5.into(),
            "is not of type",
        ),
        (
            "/spec/podFailurePolicy/rules/1/onPodConditions/0/status",
            serde_json::Value::Null,
            "is missing",
        ),
        (
            "/spec/template/spec/volumes/0/emptydir",
            serde_json::json!({}),
            "there is no such field",
        ),
    ] {
        let mut job = job.clone();
        let (parent, name) = place.rsplit_once('/').unwrap();
        let parent = job.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if wrong.is_null() {
            parent.remove(name).unwrap();
        } else {
            parent.insert(name.to_owned(), wrong);
        }
        let found = schema::problems(&schema, &job);
        assert!(
            matches!(found.as_slice(), [one] if one.contains(name) && one.contains(problem)),
            "{place}: {found:?}"
        );
    }
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
