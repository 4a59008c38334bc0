"""The files under launch/ give the trainer the environment that it needs, and fit the published schemas."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from solo_dist.distributed.array_task import array_task
from solo_dist.distributed.cluster.resolve import resolve_cluster
from solo_dist.distributed.exit_codes import EXIT_USER_ERROR, is_restartable
from solo_dist.distributed.job import job_id

yaml = pytest.importorskip("yaml")

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((LAUNCH / name).read_text()))


def jobset() -> dict:
    return documents("kubernetes/jobset.yaml")[0]


def indexed_job() -> dict:
    return documents("kubernetes/indexed_job.yaml")[1]


def tfjob() -> dict:
    return documents("kubernetes/tfjob.yaml")[0]


def pod_environment(pod: dict, labels: dict[str, str]) -> dict[str, str]:
    """What Kubernetes makes of `env`, given the labels that a controller puts on the pod."""
    values = {}
    for variable in pod["spec"]["containers"][0]["env"]:
        if "value" in variable:
            values[variable["name"]] = variable["value"]
        else:
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            values[variable["name"]] = labels[re.fullmatch(r"metadata\.labels\['(.+)'\]", path)[1]]
    return values


def test_jobset_workers_find_each_other():
    (replicated,) = jobset()["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    name = jobset()["metadata"]["name"]
    labels = {"jobset.sigs.k8s.io/jobset-name": name, "jobset.sigs.k8s.io/replicatedjob-name": replicated["name"]}
    assert replicated["replicas"] == 1
    assert job["completions"] == job["parallelism"]
    for index in range(job["completions"]):
        environ = pod_environment(job["template"], labels) | {"JOB_COMPLETION_INDEX": str(index)}
        cluster = resolve_cluster(environ)
        assert cluster.index == index
        # The controller's rule: <jobset>-<replicated job>-<job index>-<pod index>.<subdomain, by default the jobset>
        assert cluster.workers == tuple(
            f"{name}-{replicated['name']}-0-{pod}.{name}:2222" for pod in range(job["completions"])
        )
        assert job_id(environ) == f"SOLO_DIST_JOB_ID={name}"


def test_indexed_job_workers_find_each_other():
    service, job = documents("kubernetes/indexed_job.yaml")
    spec, name = job["spec"], job["metadata"]["name"]
    labels = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/controller-uid": "7f3a"}
    assert spec["completions"] == spec["parallelism"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    for index in range(spec["completions"]):
        environ = pod_environment(spec["template"], labels) | {"JOB_COMPLETION_INDEX": str(index)}
        cluster = resolve_cluster(environ)
        assert cluster.index == index
        # Kubernetes' rule: <job>-<index>.<subdomain>, where the subdomain is the service's name
        subdomain = spec["template"]["spec"]["subdomain"]
        assert subdomain == service["metadata"]["name"]
        assert cluster.workers == tuple(f"{name}-{pod}.{subdomain}:2222" for pod in range(spec["completions"]))
        assert job_id(environ) == "SOLO_DIST_JOB_ID=7f3a"


def test_tfjob_has_only_roles_that_train():
    replicas = tfjob()["spec"]["tfReplicaSpecs"]
    hosts = [f"solo-dist-worker-{index}.default.svc:2222" for index in range(replicas["Worker"]["replicas"])]
    cluster = {role.lower(): hosts for role in replicas}
    environ = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}})}
    assert resolve_cluster(environ).workers == tuple(hosts)
    labels = {"training.kubeflow.org/job-name": "solo-dist"}
    assert job_id(pod_environment(replicas["Worker"]["template"], labels)) == "SOLO_DIST_JOB_ID=solo-dist"


def test_vertex_pools_are_those_that_train():
    (spec,) = documents("vertex/job.yaml")
    pools = {
        f"workerpool{number}": [f"pool{number}-{index}:2222" for index in range(pool["replicaCount"])]
        for number, pool in enumerate(spec["workerPoolSpecs"])
    }
    assert spec["workerPoolSpecs"][0]["replicaCount"] == 1
    task = {"type": "workerpool1", "index": 0, "trial": ""}
    environ = {"CLUSTER_SPEC": json.dumps({"cluster": pools, "task": task, "environment": "cloud"})}
    assert resolve_cluster(environ).index == 1


def test_failures_are_restarted_and_users_errors_are_not():
    job = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]
    for spec in (job, indexed_job()["spec"]):
        rule = spec["podFailurePolicy"]["rules"][0]
        (container,) = spec["template"]["spec"]["containers"]
        assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "In")
        assert rule["onExitCodes"]["containerName"] == container["name"]
        assert rule["onExitCodes"]["values"] == [EXIT_USER_ERROR]
    # Kubeflow's ExitCode policy starts again from 128 on.
    assert tfjob()["spec"]["tfReplicaSpecs"]["Worker"]["restartPolicy"] == "ExitCode"
    assert all(is_restartable(code) for code in range(193, 200))


@pytest.mark.parametrize(
    "pod",
    [
        lambda: jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"],
        lambda: indexed_job()["spec"]["template"],
        lambda: tfjob()["spec"]["tfReplicaSpecs"]["Worker"]["template"],
    ],
)
def test_pods_have_time_to_save_and_a_shared_workdir(pod):
    spec = pod()["spec"]
    (container,) = spec["containers"]
    workdir = next(argument.partition("=")[2] for argument in container["args"] if argument.startswith("--workdir="))
    mount = next(mount for mount in container["volumeMounts"] if workdir.startswith(mount["mountPath"]))
    volume = next(volume for volume in spec["volumes"] if volume["name"] == mount["name"])
    (claim,) = documents("kubernetes/workdir.yaml")
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert spec["terminationGracePeriodSeconds"] >= 120


def test_data_workers_find_the_dispatcher_and_the_shards():
    service, dispatcher, workers = documents("kubernetes/data_service.yaml")
    (port,) = [port["port"] for port in service["spec"]["ports"]]
    (serving,) = dispatcher["spec"]["template"]["spec"]["containers"]
    (making,) = workers["spec"]["template"]["spec"]["containers"]
    assert service["spec"]["selector"] == dispatcher["spec"]["template"]["metadata"]["labels"]
    assert f"--port={port}" in serving["args"]
    assert f"--dispatcher={service['metadata']['name']}:{port}" in making["args"]
    training = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert workers["spec"]["template"]["spec"]["volumes"][0] in training["volumes"]
    assert making["volumeMounts"][0]["mountPath"] == training["containers"][0]["volumeMounts"][0]["mountPath"]


def flags_of(job: dict) -> dict[str, str]:
    """The flags of the one container of a Job, by name; "": no value."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    pairs = [argument.partition("=") for argument in container["args"] if argument.startswith("--")]
    return {name: value for name, _, value in pairs}


def test_sharding_jobs_are_the_steps_of_one_command():
    plan, tasks, finish = documents("kubernetes/shard.yaml")
    assert [job["metadata"]["labels"]["step"] for job in (plan, tasks, finish)] == ["plan", "task", "finish"]
    assert "--plan" in flags_of(plan) and "--finish" in flags_of(finish) and "--task_index" not in flags_of(tasks)
    own = {"--plan", "--finish", "--task_count", "--processes"}
    shared = [
        {name: value for name, value in flags_of(job).items() if name not in own} for job in (plan, tasks, finish)
    ]
    assert shared[0] == shared[1] == shared[2]
    count = tasks["spec"]["completions"]
    assert flags_of(tasks)["--task_count"] == flags_of(finish)["--task_count"] == str(count)
    for index in range(count):
        assert array_task({"JOB_COMPLETION_INDEX": str(index)}, None, count) == (index, count)
    (claim,) = documents("kubernetes/workdir.yaml")
    for job, action in ((plan, "FailJob"), (tasks, "FailIndex"), (finish, "FailJob")):
        template = job["spec"]["template"]
        rule = job["spec"]["podFailurePolicy"]["rules"][0]
        assert rule["action"] == action and rule["onExitCodes"]["values"] == [EXIT_USER_ERROR]
        assert rule["onExitCodes"]["containerName"] == template["spec"]["containers"][0]["name"]
        assert job_id(pod_environment(template, {"batch.kubernetes.io/controller-uid": "7f"})) == "SOLO_DIST_JOB_ID=7f"
        (mount,) = template["spec"]["containers"][0]["volumeMounts"]
        assert flags_of(job)["--output"].startswith(mount["mountPath"])
        (volume,) = template["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_kubernetes_schemas():
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate to check the schemas")
    job = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]
    worker = tfjob()["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]
    names = ("workdir", "indexed_job", "data_service", "shard")
    objects = [thing for name in names for thing in documents(f"kubernetes/{name}.yaml")]
    objects.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": job})
    objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": worker})
    for thing in objects:
        validate.validate(thing, "1.32", strict=True)


@pytest.mark.parametrize("name", ["train", "data_service", "shard"])
def test_slurm_scripts_are_valid_shell(name):
    subprocess.run(["bash", "-n", str(LAUNCH / f"slurm/{name}.sbatch")], check=True)
