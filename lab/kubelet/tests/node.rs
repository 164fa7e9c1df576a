//! A node as a user sees it: pods run, are looked into, change, fail and go. Needs root.

mod common;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use common::{in_lab, is_ready, state, uid};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

#[test]
fn a_node_is_ready_once_it_has_a_network_configuration() {
    in_lab(|name, maker| async move {
        let lab = maker.make().await?;
        let nodes: Api<Node> = Api::all(lab.client.clone());
        let ready = |status: &'static str| {
            let nodes = nodes.clone();
            async move {
                for _ in 0..3000 {
                    let node = serde_json::to_value(nodes.get_opt(name).await?)?;
                    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
                    if let Some(found) = conditions.iter().find(|c| c["type"] == "Ready" && c["status"] == status) {
                        return anyhow::Ok((node.clone(), found["message"].as_str().unwrap_or_default().to_owned()));
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                anyhow::bail!("the node never gets Ready={status}")
            }
        };
        let (node, message) = ready("False").await?;
        ensure!(message.ends_with("cni plugin not initialized"), "{message}");
        ensure!(
            node["metadata"]["labels"]["lab"] == "yes" && node["metadata"]["labels"]["kubernetes.io/hostname"] == name
        );
        ensure!(
            node["status"]["addresses"][1] == json!({"type": "InternalIP", "address": "::1"}),
            "{:#}",
            node["status"]
        );
        lab.configure_network()?;
        ready("True").await?;
        Ok(())
    });
}

#[test]
fn a_pod_has_network_probes_volumes_and_environment() {
    in_lab(|_, maker| async move {
        let lab = maker.make().await?;
        lab.configure_network()?;
        let maps: Api<ConfigMap> = Api::default_namespaced(lab.client.clone());
        let map = json!({"metadata": {"name": "settings"}, "data": {"key": "one"}});
        maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
        lab.create(json!({"metadata": {"name": "web"}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "map", "configMap": {"name": "settings"}}, {"name": "shared", "emptyDir": {}}],
            "initContainers": [{"name": "first", "image": "busybox", "command": ["sh", "-c", "echo $(GREETING) > /shared/file"],
                "env": [{"name": "GREETING", "value": "hello"}], "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
            "containers": [{"name": "c", "image": "nginx:1.27", "env": [
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "key"}}}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1},
                "livenessProbe": {"exec": {"command": ["test", "-e", "/shared/file"]}, "periodSeconds": 1},
                "volumeMounts": [{"name": "map", "mountPath": "/etc/settings"}, {"name": "shared", "mountPath": "/shared"}]}],
        }})).await?;
        let pod = lab.until_ready("web").await?;
        let ip = pod["status"]["podIP"].as_str().context("podIP")?.to_owned();
        ensure!(
            ip.starts_with("10.9.0.")
                && pod["status"]["podIPs"][1]["ip"].as_str().is_some_and(|ip| ip.starts_with("fd09::"))
        );
        ensure!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed");

        let script = "cat /shared/file /etc/settings/key; echo $IP $KEY $(hostname); cat /etc/hosts | tail -1; ls /tmp; cat /proc/1/comm";
        let (code, out, err) = lab.kubectl(&["exec", "web", "-c", "c", "--", "sh", "-c", script], "").await?;
        let want = format!("hello\none{ip} one web\n");
        ensure!(code == 0 && out.starts_with(&want), "{code} {out} {err}");
        ensure!(out.contains("\tweb\n"), "{out}");

        // The volume follows its ConfigMap; the environment stays.
        maps.patch("settings", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "two"}}))).await?;
        for attempt in 0.. {
            let (_, out, _) =
                lab.kubectl(&["exec", "web", "--", "sh", "-c", "cat /etc/settings/key; echo $KEY"], "").await?;
            if out == "twoone\n" {
                break;
            }
            ensure!(attempt < 20, "{out}");
        }
        let (_, log, _) = lab.kubectl(&["logs", "web", "--tail=1"], "").await?;
        ensure!(log.contains("\"GET / HTTP/1.1\" 200") && log.contains("kube-probe"), "{log}");
        let events: Vec<String> = lab.events("web").await?.into_iter().map(|(reason, _)| reason).collect();
        for reason in ["Scheduled", "Pulled", "Created", "Started"] {
            ensure!(events.iter().any(|e| e == reason), "{events:?}");
        }
        Ok(())
    });
}

#[test]
fn kubectl_sees_output_input_codes_and_terminals() {
    in_lab(|_, maker| async move {
        let lab = maker.make().await?;
        lab.configure_network()?;
        let script = "trap 'exit 0' TERM; echo out; echo err >&2; i=0; while :; do sleep 0.2; i=$((i+1)); [ $i = 8 ] && exit 5; done";
        let sleeper = json!({"image": "nicolaka/netshoot", "command": ["sleep", "1000"]});
        lab.create_simple("tools", sleeper).await?;
        lab.create(json!({"metadata": {"name": "talker"}, "spec": {"restartPolicy": "Never", "containers":
            [{"name": "c", "image": "busybox", "command": ["sh", "-c", script]}]}}))
            .await?;
        lab.until_ready("tools").await?;
        lab.until_ready("talker").await?;
        let follow = lab.kubectl(&["logs", "-f", "talker"], "");
        let exec = async {
            let (code, out, err) = lab
                .kubectl(&["exec", "-i", "tools", "--", "sh", "-c", "tr a-z A-Z; echo bad >&2; exit 7"], "hello")
                .await?;
            ensure!((code, out.as_str()) == (7, "HELLO") && err.starts_with("bad\n"), "{code} {out} {err}");
            let (code, _, err) = lab.kubectl(&["exec", "tools", "--", "no-such-program"], "").await?;
            ensure!(code != 0 && err.contains("executable file not found in $PATH"), "{code} {err}");
            // kubectl has no terminal here, so `script` lends it one.
            let inner = format!("kubectl --server {} exec -ti tools -- sh -c 'tty; stty size; exit 3'", lab.url);
            let mut script = tokio::process::Command::new("script");
            script.args(["-qec", &inner, "/dev/null"]).env_remove("KUBECONFIG").stdin(std::process::Stdio::null());
            let output =
                tokio::time::timeout(Duration::from_secs(60), script.output()).await.context("script hangs")??;
            let out = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(out.contains("/dev/pts/") && output.status.code() == Some(3), "{out} {:?}", output.status);
            // Many bytes, none lost.
            let (_, out, _) = lab.kubectl(&["exec", "tools", "--", "sh", "-c", "seq 1 200000"], "").await?;
            ensure!(out.lines().count() == 200_000 && out.ends_with("200000\n"), "{}", out.len());
            anyhow::Ok(())
        };
        let (log, checked) = tokio::join!(follow, exec);
        checked?;
        let (code, log, _) = log?;
        ensure!(code == 0 && log == "out\nerr\n", "{log}");
        let reader = json!({"name": "c", "image": "alpine", "stdin": true, "stdinOnce": true,
            "command": ["sh", "-c", "while read line; do echo got $line; done; echo end >&2"]});
        lab.create(json!({"metadata": {"name": "reader"}, "spec": {"restartPolicy": "Never", "containers": [reader]}}))
            .await?;
        lab.until_ready("reader").await?;
        let (code, out, err) = lab.kubectl(&["attach", "-i", "reader"], "one\ntwo\n").await?;
        ensure!(code == 0 && out == "got one\ngot two\n" && err.contains("end\n"), "{code} {out} {err}");
        lab.until_pod("reader", |pod| pod["status"]["phase"] == "Succeeded").await?;

        let ended = lab.until_pod("talker", |pod| pod["status"]["phase"] == "Failed").await?;
        ensure!(state(&ended)["terminated"]["exitCode"] == 5, "{}", state(&ended));
        Ok(())
    });
}

#[test]
fn a_refusing_plugin_is_quoted_and_asked_again() {
    in_lab(|_, maker| async move {
        let lab = maker.make().await?;
        std::fs::write(lab.dir.join("bin/refuse"), "")?;
        lab.configure_network()?;
        lab.create_simple("p", json!({"image": "traefik/whoami"})).await?;
        let message = lab.until_event("p", "FailedCreatePodSandBox", "failed (add)").await?;
        ensure!(message.starts_with(
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \""
        ));
        ensure!(message.ends_with("plugin type=\"fake-cni\" failed (add): no address is free"), "{message}");
        let pod = lab.until_pod("p", |pod| !state(pod).is_null()).await?;
        ensure!(state(&pod)["waiting"]["reason"] == "ContainerCreating", "{}", state(&pod));
        std::fs::remove_file(lab.dir.join("bin/refuse"))?;
        let pod = lab.until_ready("p").await?;
        // Each failed ADD was undone; the one that counts was not.
        let last = lab.calls().into_iter().rfind(|call| call.starts_with("ADD")).context("ADD")?;
        let id = last.split_whitespace().nth(1).context("id")?.to_owned();
        ensure!(!lab.calls().iter().any(|call| call.starts_with("DEL") && call.contains(&id)), "{:?}", lab.calls());
        ensure!(id.len() == "id=".len() + 64);
        let want = format!(
            "K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            &id[3..],
            uid(&pod)
        );
        ensure!(last.ends_with(&format!("ifname=eth0 args=IgnoreUnknown=1;{want}")), "{last}");

        // The end: DEL with the namespace, DEL without, nothing left.
        lab.delete("p").await?;
        lab.until_gone("p").await?;
        let dels: Vec<String> =
            lab.calls().into_iter().filter(|call| call.starts_with("DEL") && call.contains(&id)).collect();
        ensure!(dels.len() == 2 && dels[0].contains("/netns/cni-") && dels[1].contains(" netns= "), "{dels:?}");
        let stdin: serde_json::Value = serde_json::from_slice(&std::fs::read(lab.dir.join("bin/stdin.DEL"))?)?;
        ensure!(stdin["mark"] == 7 && stdin["name"] == "test" && stdin["prevResult"]["ips"].is_array(), "{stdin}");
        for dir in ["netns", "pods", "logs"] {
            // The object goes a moment before the directories.
            for attempt in 0.. {
                if std::fs::read_dir(lab.dir.join(dir))?.count() == 0 {
                    break;
                }
                ensure!(attempt < 1200, "{dir} is not empty");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    });
}

#[test]
fn failing_containers_and_images_back_off() {
    in_lab(|_, maker| async move {
        let lab = maker.make().await?;
        lab.configure_network()?;
        lab.create_simple("crash", json!({"image": "busybox", "command": ["sh", "-c", "echo run; exit 3"]})).await?;
        lab.create_simple("image", json!({"image": "no/such"})).await?;
        lab.create_simple("typo", json!({"image": "busybox", "command": ["no-such-program"]})).await?;
        let sick = json!({"image": "busybox", "command": ["sleep", "100"],
            "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}});
        lab.create_simple("sick", sick).await?;

        let crash = lab.until_pod("crash", |pod| state(pod)["waiting"]["reason"] == "CrashLoopBackOff").await?;
        let status = &crash["status"]["containerStatuses"][0];
        ensure!(status["restartCount"] == 1 && status["lastState"]["terminated"]["exitCode"] == 3, "{status:#}");
        ensure!(
            state(&crash)["waiting"]["message"]
                .as_str()
                .is_some_and(|m| m.starts_with("back-off 10s restarting failed container=c pod=crash_default("))
        );
        let (_, log, _) = lab.kubectl(&["logs", "crash", "--previous"], "").await?;
        ensure!(log == "run\n", "{log}");
        let script =
            "echo 1 > /proc/sys/net/ipv4/ip_forward && ! echo x > /proc/sys/kernel/domainname && ! touch /sys/x";
        lab.create(json!({"metadata": {"name": "sysctls"}, "spec": {"restartPolicy": "Never", "containers":
            [{"name": "c", "image": "busybox", "command": ["sh", "-c", script]}]}}))
            .await?;
        lab.until_pod("sysctls", |pod| pod["status"]["phase"] == "Succeeded").await?;
        lab.until_pod("image", |pod| state(pod)["waiting"]["reason"] == "ImagePullBackOff").await?;
        let message = lab.until_event("image", "Failed", "Failed to pull").await?;
        ensure!(message.contains("docker.io/no/such:latest: not found"), "{message}");
        lab.until_event("typo", "Failed", "exec: \"no-such-program\": executable file not found in $PATH").await?;
        lab.until_event("sick", "Killing", "Container c failed liveness probe, will be restarted").await?;
        lab.until_pod("sick", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await?;
        Ok(())
    });
}

#[test]
fn a_killed_kubelet_leaves_its_pods_and_the_next_takes_them_over() {
    in_lab(|_, maker| async move {
        let mut lab = maker.make().await?;
        lab.configure_network()?;
        for name in ["stays", "goes"] {
            lab.create_simple(name, json!({"image": "kinesin/echo"})).await?;
        }
        let stays = lab.until_ready("stays").await?;
        let goes = lab.until_ready("goes").await?;
        let process = lab.process(&uid(&stays)).context("a process")?;
        lab.kill_kubelet()?;
        // By force: the API server forgets it at once, and nobody is there to hear of it.
        lab.pods()
            .delete("goes", &kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() })
            .await?;
        let netns = lab.dir.join("netns/cni-stray");
        drop(kinesin_netlink::NetNs::create(&netns)?);
        let ip = stays["status"]["podIP"].as_str().context("podIP")?.to_owned();
        let page =
            tokio::process::Command::new("curl").args(["-s", "-m", "3", &format!("http://{ip}/")]).output().await?;
        ensure!(page.stdout == b"stays\n", "traffic flows without a kubelet: {page:?}");
        lab.start_kubelet()?;
        for attempt in 0.. {
            if !lab.dir.join("pods").join(uid(&goes)).exists() && !netns.exists() {
                break;
            }
            ensure!(attempt < 2000, "the forgotten pod and the stray namespace are not cleaned up");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let after = lab.until_pod("stays", is_ready).await?;
        ensure!(after["status"]["containerStatuses"] == stays["status"]["containerStatuses"], "{:#}", after["status"]);
        ensure!(lab.process(&uid(&stays)) == Some(process));
        let (code, out, err) = lab.kubectl(&["exec", "stays", "--", "cat", "/proc/1/cmdline"], "").await?;
        ensure!(code == 0 && out.contains("lab-workload"), "{out} {err}");
        lab.delete("stays").await?;
        lab.until_gone("stays").await?;
        ensure!(lab.calls().iter().filter(|call| call.starts_with("ADD")).count() == 2, "{:?}", lab.calls());
        Ok(())
    });
}
