"""The application: all routes over one service.

FastAPI routes and reads the parameters; answers are written as they are (``Json``), because the
tables of the contract are tested and a second check of every line would cost more than the query.
"""

from __future__ import annotations

from fastapi import FastAPI

from daemon import __version__
from daemon.api import files, jobs, models, previews, system
from daemon.api.answers import install_error_handlers
from daemon.api.service import Service


def create_app(service: Service) -> FastAPI:
    """Return the application that serves ``service``."""
    app = FastAPI(
        title="studioq",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    install_error_handlers(app)
    for module in (jobs, files, previews, models, system):
        app.include_router(module.router)
    return app
