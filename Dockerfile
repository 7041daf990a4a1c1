# The images of scripts/images for those who build with Docker or Podman: the same files by the same scripts, one target each.
#
#   docker build --target operator -t registry.example.com/pitcrew/operator:0.1.0 .
#
# tests/images/images_test.py holds users and entry points below against what scripts/images writes.
FROM debian:12 AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates git python3 sudo && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN scripts/setup && scripts/images --out /out operator launcher agent trainer check cli \
    && for image in operator launcher agent trainer check cli; do python3 scripts/oci.py /out/$image.tar /root-of/$image; done

FROM scratch AS operator
COPY --from=build /root-of/operator /
USER 65532:65532
ENTRYPOINT ["/usr/bin/pitcrew-operator"]

FROM scratch AS launcher
COPY --from=build /root-of/launcher /
USER 65532:65532
ENTRYPOINT ["/pitcrew-launcher"]

FROM scratch AS agent
COPY --from=build /root-of/agent /
USER 0:0
ENTRYPOINT ["/usr/bin/pitcrew-agent"]

FROM scratch AS trainer
COPY --from=build /root-of/trainer /
USER 65532:65532

FROM scratch AS check
COPY --from=build /root-of/check /
USER 65532:65532
ENTRYPOINT ["/usr/bin/pitcrew-check"]

FROM scratch AS cli
COPY --from=build /root-of/cli /
USER 65532:65532
ENTRYPOINT ["/usr/bin/pitcrew"]
