# The BIDS-App: docker build -t ldae . (docs/container.md). Weights are inside; nothing is fetched
# when it runs. Versions are those of requirements.lock.
FROM python:3.11-slim-bookworm AS build
# Address of an index with torch for processors alone; without it torch comes with CUDA.
ARG TORCH_INDEX=
WORKDIR /src
COPY . .
RUN python -m venv /opt/ldae \
    && if [ -n "$TORCH_INDEX" ]; then \
         /opt/ldae/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" \
           "$(grep '^torch==' requirements.lock)"; \
       fi \
    && /opt/ldae/bin/pip install --no-cache-dir -c requirements.lock .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/ldae /opt/ldae
ENV PATH=/opt/ldae/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1
RUN useradd --uid 1000 --no-create-home --home-dir /tmp ldae \
    && install -d -o ldae /work
USER 1000
WORKDIR /work
ENTRYPOINT ["pipeline", "bids"]
