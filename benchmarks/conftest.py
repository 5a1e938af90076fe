"""Options of `make bench ARGS=...`, the environment before anything loads torch, and what is shown at the end."""

from benchmarks import environment

environment.prepare(environment.argument("--peer-isa", "native"))

from benchmarks.cases import add_options  # noqa: E402


def pytest_addoption(parser):
    add_options(parser.getgroup("minifloat benchmarks").addoption)


def pytest_terminal_summary(terminalreporter, config):
    run = config.pluginmanager.get_plugin("minifloat run")
    if run is None or not run.cells:
        return
    from benchmarks.report import markdown

    path = run.save(config.option.out)
    terminalreporter.write_line(f"\n{markdown(run.results())}\n{path}")
