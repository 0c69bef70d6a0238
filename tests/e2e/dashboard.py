"""The dashboard in headless Chromium, driven through ChromeDriver's HTTP interface: sign-in, the list, a job's page while
it trains and afterwards. With a path as the second argument, leaves a screenshot of the finished job there."""
import base64
import json
import os
import subprocess
import sys
import time
import urllib.request

from service import corpus, service, tiny_job


class Browser:
    def __init__(self):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.driver.stdout:
            if "successfully on port" in line:
                port = int(line.rstrip().rstrip(".").rsplit(" ", 1)[1])
                self.base = f"http://127.0.0.1:{port}"
                break
        arguments = ["--headless=new", "--disable-gpu", "--no-sandbox", "--window-size=1240,1500", "--disable-dev-shm-usage"]
        self.base += "/session/" + self.call("/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}}})["sessionId"]

    def call(self, path, body=None):
        request = urllib.request.Request(self.base + path, None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self.call("/url", {"url": url})

    def run(self, script, *arguments):
        return self.call("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.2)
        raise AssertionError(f"never true: {script}\npage: {self.run('return document.body.innerText')}\n{self.errors()}")

    def errors(self):
        return [e for e in self.call("/se/log", {"type": "browser"}) if e["level"] == "SEVERE"]

    def picture(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("/screenshot")))

    def close(self):
        try:
            urllib.request.urlopen(urllib.request.Request(self.base, method="DELETE"), timeout=20).close()
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=20)


def watch(browser, hebb, job):
    browser.open(f"{hebb.url}/")
    browser.wait("return document.querySelector('input[type=password]') !== null")  # no token: sign-in
    browser.open("about:blank")
    browser.open(f"{hebb.url}/#token={hebb.token}")
    browser.wait("return [...document.querySelectorAll('td a')].some(a => a.textContent === 'tiny')")
    assert hebb.token not in browser.run("return location.href"), "the token stays in the address"
    browser.run("document.querySelector('td a').click()")
    browser.wait("return document.querySelector('h1 .state')?.textContent === 'running'")
    browser.wait("return document.getElementById('connection').textContent.includes('live')")
    step = "return Number(document.querySelector('.tile b')?.textContent.split('/')[0])"
    first = browser.run(step)
    browser.wait(f"return (() => {{ {step} }})() > {first or 0}")  # it moves without a reload
    hebb.wait(job)
    browser.wait("return document.querySelector('h1 .state')?.textContent === 'succeeded'")
    browser.wait("return document.querySelectorAll('.uplot canvas').length === 7")  # 4 curves, 3 of the topology
    label = browser.run("return document.querySelector('.plot').getAttribute('aria-label')")
    assert "training from" in label and "validation from" in label and "without data" not in label, label
    steps = label.split("steps 1 to ")[1]
    assert steps.startswith("150:"), label
    inks = browser.run("return [...document.querySelectorAll('.uplot canvas')].map(c => "
                       "new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size)")
    assert min(inks) > 3, f"an empty canvas: {inks}"
    browser.run("document.querySelector('details.matrices').open = true")
    rows = browser.run("return document.querySelectorAll('details.matrices tbody tr').length")
    assert rows == 14, rows
    assert not browser.errors(), browser.errors()


def show_names_as_text(browser, hebb, path):
    name = "<b>bold</b> & " + "x" * 80
    wrong = {**tiny_job(path), "name": name, "model": {"hidden": 64, "intermediate": 96, "layers": 1, "heads": 2}}
    wrong["sparsity"] = {"method": "dense"}
    job = hebb.json("POST", "/v1/jobs", wrong)["id"]
    hebb.json("POST", f"/v1/jobs/{job}/cancel")
    hebb.wait(job, ("cancelled",))
    browser.call("/window/rect", {"width": 500, "height": 900})
    browser.open(f"{hebb.url}/#/jobs/{job}")
    browser.wait("return document.querySelector('h1 .state')?.textContent === 'cancelled'")
    assert browser.run("return document.querySelector('h1').firstChild.data") == name
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "a long name makes the page scroll sideways"
    tiles = browser.run("return [...document.querySelectorAll('.tile')].map(t => t.innerText.split('\\n'))")
    assert ["–", "left"] in tiles and ["100 %", "density"] in tiles, tiles
    assert "dense does not refresh masks" in browser.run("return document.body.innerText")


def main():
    with service() as hebb:
        job = hebb.json("POST", "/v1/jobs", tiny_job(corpus(hebb), steps=150))["id"]
        browser = Browser()
        try:
            watch(browser, hebb, job)
            if len(sys.argv) > 2:
                browser.picture(sys.argv[2])
            show_names_as_text(browser, hebb, corpus(hebb))
        finally:
            browser.close()
    print("dashboard: ok")


os.environ.setdefault("no_proxy", "127.0.0.1")
main()
